"""WRN-28-4 -> WRN-16-2 on CIFAR-100 in one run: KL at tau = 3, after 100 epochs MSE.

The paper takes KL and MSE in turn in separate runs (its sequential table); here the loss changes
when the learning rate first drops.

    python tools/train.py configs/sequential/wrn28-4_wrn16-2_kl-t3-then-mse.py --train-teacher
"""
_base_ = '../kd/wrn28-4_wrn16-2_kl-t3.py'
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_logit.SequentialTeacherHook',
        stages=[dict(begin=100, loss_kd=dict(type='mmkd_logit.LogitMSELoss'))])
]
