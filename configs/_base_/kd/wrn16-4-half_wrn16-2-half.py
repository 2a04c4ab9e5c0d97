"""WRN-16-4 teaches WRN-16-2, both at half resolution, 30 epochs; alpha = 1, the loss is open."""
_base_ = './wrn28-4-half_wrn16-2-half.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::wrn/wrn16-4-half.py',
        checkpoint='work_dirs/wrn16-4-half/seed0/final.pth'))
