"""WRN-28-4 teaches WRN-16-2; alpha = 1, as in the paper. The config names the loss."""
_base_ = '../../wrn/wrn16-2.py'
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='configs/wrn/wrn28-4.py',
        checkpoint='work_dirs/wrn28-4/seed0/final.pth'),
    alpha=1.0)
log_processor = dict(
    custom_cfg=[
        dict(data_src=key, method_name='mean', window_size=10)
        for key in ('ce', 'kd', 'teacher_agreement')
    ])
