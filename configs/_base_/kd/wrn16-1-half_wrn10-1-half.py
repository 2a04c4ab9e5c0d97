"""WRN-16-1 teaches WRN-10-1, both at half resolution; the config names the loss."""
_base_ = ['../../wrn/wrn10-1-half.py', '../kd_log.py']
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='configs/wrn/wrn16-1-half.py',
        checkpoint='work_dirs/wrn16-1-half/seed0/final.pth',
        cache=dict(storage='disk')),
    alpha=1.0)
