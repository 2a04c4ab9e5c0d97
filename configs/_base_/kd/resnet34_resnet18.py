"""ResNet-34 teaches ResNet-18; alpha = 1. The config names the loss."""
_base_ = ['../../resnet/resnet18.py', '../kd_log.py']
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='mmkd_logit::resnet/resnet34.py',
        checkpoint='work_dirs/resnet34/seed0/final.pth',
        cache=dict(storage='disk')),
    alpha=1.0)
