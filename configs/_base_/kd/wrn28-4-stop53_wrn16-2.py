"""WRN-28-4, stopped at 53.77 % train accuracy, teaches WRN-16-2; alpha = 1."""
_base_ = './wrn28-4_wrn16-2.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::noisy_teacher/wrn28-4_stop53.py',
        checkpoint='work_dirs/wrn28-4_stop53/seed0/final.pth'))
