"""WRN-16-2 teaches WRN-10-1 on 10 % of each class, 40 % of the labels wrong; the loss is open."""
_base_ = ['../../noisy_label/wrn10-1-half_samples_sym40.py', '../kd_log.py']
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='mmkd_logit::noisy_label/wrn16-2-half_samples_sym40.py',
        checkpoint='work_dirs/wrn16-2-half_samples_sym40/seed0/final.pth',
        channels_last=True,
        cache=dict(storage='disk')),
    alpha=1.0)
