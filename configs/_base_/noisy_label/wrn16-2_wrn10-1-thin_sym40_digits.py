"""WRN-16-2 teaches thin WRN-10-1, both on digits with 40 % wrong labels; the loss is open."""
_base_ = ['../../noisy_label/wrn10-1-thin_sym40_digits.py', '../kd_log.py']
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='mmkd_logit::noisy_label/wrn16-2_sym40_digits.py',
        checkpoint='work_dirs/wrn16-2_sym40_digits/seed0/final.pth'),
    alpha=1.0)
