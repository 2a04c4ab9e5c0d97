"""WRN-16-1 -> WRN-10-1 at half resolution by KL at tau = 1, CIFAR-100 with 40 % label noise.

Minutes on a CPU; `python tools/reproduce.py noisy-label --scale cpu` runs it.
"""
_base_ = '../_base_/noisy_label/wrn16-1-half_wrn10-1-half_sym40.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=1))
