"""WRN-16-2 teaches a thin WRN-10-1 on digits; alpha = 1 as in the paper, the loss is open."""
_base_ = '../../wrn/wrn10-1-thin_digits.py'
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='configs/wrn/wrn16-2_digits.py',
        checkpoint='work_dirs/wrn16-2_digits/seed0/final.pth'),
    alpha=1.0)
log_processor = dict(
    custom_cfg=[
        dict(data_src=key, method_name='mean', window_size=10)
        for key in ('ce', 'kd', 'teacher_agreement')
    ])
