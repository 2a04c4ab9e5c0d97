"""WRN-16-1 -> WRN-10-1 at half resolution on CIFAR-100 by KL at tau 20: minutes on a CPU.

    python tools/train.py configs/kd/wrn16-1-half_wrn10-1-half_kl-t20.py --train-teacher
"""
_base_ = '../_base_/kd/wrn16-1-half_wrn10-1-half.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=20))
