"""WRN-28-4 -> WRN-16-2 by KL at tau = 1, both on CIFAR-100N's labels by people.

    python tools/train.py configs/noisy_label/wrn28-4_wrn16-2_kl-t1_human.py --train-teacher
"""
_base_ = '../_base_/noisy_label/wrn28-4_wrn16-2_human.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=1))
