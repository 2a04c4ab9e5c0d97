"""WRN-28-4 teaches WRN-28-2; alpha = 1, as in the paper. The config names the loss."""
_base_ = ['../../wrn/wrn28-2.py', '../kd_log.py']
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='mmkd_logit::wrn/wrn28-4.py',
        checkpoint='work_dirs/wrn28-4/seed0/final.pth',
        cache=dict(storage='disk')),
    alpha=1.0)
