"""WRN-28-4, then WRN-16-4 -> WRN-16-2 on CIFAR-100 in one run: KL at tau = 3, then MSE.

Teacher and loss change after 100 epochs, when the learning rate first drops. Both teachers are
trained with cross-entropy.

    python tools/train.py \
        configs/sequential/wrn28-4-then-wrn16-4_wrn16-2_kl-t3-then-mse.py --train-teacher
"""
_base_ = '../kd/wrn28-4_wrn16-2_kl-t3.py'
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_logit.SequentialTeacherHook',
        stages=[
            dict(
                begin=100,
                teacher=dict(
                    config='mmkd_logit::wrn/wrn16-4.py',
                    checkpoint='work_dirs/wrn16-4/seed0/final.pth',
                    cache=dict(storage='disk')),
                loss_kd=dict(type='mmkd_logit.LogitMSELoss'))
        ])
]
