"""WRN-16-2, stopped at 53.77 % train accuracy, teaches a thin WRN-10-1; alpha = 1."""
_base_ = './wrn16-2_wrn10-1-thin_digits.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::noisy_teacher/wrn16-2_stop53_digits.py',
        checkpoint='work_dirs/wrn16-2_stop53_digits/seed0/final.pth'))
