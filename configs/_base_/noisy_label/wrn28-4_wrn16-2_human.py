"""WRN-28-4 teaches WRN-16-2, both on CIFAR-100N's labels by people; the loss is open."""
_base_ = ['../../noisy_label/wrn16-2_human.py', '../kd_log.py']
model = dict(
    _delete_=True,
    type='mmkd_logit.LogitDistiller',
    student={{_base_.model}},
    teacher=dict(
        config='mmkd_logit::noisy_label/wrn28-4_human.py',
        checkpoint='work_dirs/wrn28-4_human/seed0/final.pth',
        cache=dict(storage='disk')),
    alpha=1.0)
