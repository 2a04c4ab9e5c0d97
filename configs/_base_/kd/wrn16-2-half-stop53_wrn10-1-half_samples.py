"""WRN-16-2, stopped at 53.77 % train accuracy, teaches WRN-10-1 on 10 % of each class."""
_base_ = ['../../data_amount/wrn10-1-half_samples.py', '../kd_log.py']
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='mmkd_logit::noisy_teacher/wrn16-2-half_stop53_samples.py',
        checkpoint='work_dirs/wrn16-2-half_stop53_samples/seed0/final.pth',
        channels_last=True,
        cache=dict(storage='disk')),
    alpha=1.0)
