"""WRN-16-1 teaches WRN-10-1; alpha = 1, as in the paper. The config names the loss."""
_base_ = ['../../wrn/wrn10-1.py', '../kd_log.py']
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='mmkd_logit::wrn/wrn16-1.py',
        checkpoint='work_dirs/wrn16-1/seed0/final.pth',
        cache=dict(storage='disk')),
    alpha=1.0)
