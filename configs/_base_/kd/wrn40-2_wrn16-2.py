"""WRN-40-2 teaches WRN-16-2; the second pair of the grid. The config names the loss."""
_base_ = ['../../wrn/wrn16-2.py', '../kd_log.py']
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='mmkd_logit::wrn/wrn40-2.py',
        checkpoint='work_dirs/wrn40-2/seed0/final.pth',
        cache=dict(storage='disk')),
    alpha=1.0)
