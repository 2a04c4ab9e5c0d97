"""WRN-16-2 teaches WRN-16-2; born again, alpha = 1. The config names the loss."""
_base_ = './wrn28-4_wrn16-2.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::wrn/wrn16-2.py',
        checkpoint='work_dirs/wrn16-2/seed0/final.pth'))
