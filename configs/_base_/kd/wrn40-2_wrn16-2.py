"""WRN-40-2 teaches WRN-16-2; the second pair of the grid. The config names the loss."""
_base_ = './wrn28-4_wrn16-2.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::wrn/wrn40-2.py',
        checkpoint='work_dirs/wrn40-2/seed0/final.pth'))
