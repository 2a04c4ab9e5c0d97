"""WRN-16-4 teaches WRN-16-2; alpha = 1, as in the paper. The config names the loss."""
_base_ = './wrn28-4_wrn16-2.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::wrn/wrn16-4.py',
        checkpoint='work_dirs/wrn16-4/seed0/final.pth'))
