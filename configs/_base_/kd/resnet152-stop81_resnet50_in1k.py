"""ResNet-152, stopped at 81.16 % train accuracy, teaches ResNet-50; alpha = 1."""
_base_ = './resnet152_resnet50_in1k.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::noisy_teacher/resnet152_stop81_in1k.py',
        checkpoint='work_dirs/resnet152_stop81_in1k/seed0/final.pth'))
