"""WRN-16-1 teaches WRN-10-1 at half resolution, both with 40 % wrong labels; the loss is open."""
_base_ = './wrn16-1_wrn10-1_sym40.py'
model = dict(
    student=dict(backbone=dict(strides=(2, 2, 2))),
    teacher=dict(
        config='configs/noisy_label/wrn16-1-half_sym40.py',
        checkpoint='work_dirs/wrn16-1-half_sym40/seed0/final.pth'))
