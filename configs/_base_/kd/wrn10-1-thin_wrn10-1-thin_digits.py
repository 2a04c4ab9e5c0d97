"""thin WRN-10-1 teaches thin WRN-10-1 on digits; alpha = 1 as in the paper, the loss is open."""
_base_ = './wrn16-2_wrn10-1-thin_digits.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::wrn/wrn10-1-thin_digits.py',
        checkpoint='work_dirs/wrn10-1-thin_digits/seed0/final.pth'))
