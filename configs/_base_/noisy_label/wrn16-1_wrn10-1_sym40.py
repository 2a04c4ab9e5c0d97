"""WRN-16-1 teaches WRN-10-1, both on CIFAR-100 with 40 % wrong labels; the loss is open."""
_base_ = ['../../noisy_label/wrn10-1_sym40.py', '../kd_log.py']
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='mmkd_logit::noisy_label/wrn16-1_sym40.py',
        checkpoint='work_dirs/wrn16-1_sym40/seed0/final.pth',
        cache=dict(storage='disk')),
    alpha=1.0)
