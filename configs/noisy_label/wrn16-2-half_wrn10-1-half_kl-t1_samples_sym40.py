r"""WRN-16-2 -> WRN-10-1 by KL at tau = 1 on 10 % of each class, 40 % label noise, 100 epochs.

    python tools/train.py configs/noisy_label/wrn16-2-half_wrn10-1-half_kl-t1_samples_sym40.py \
        --train-teacher
"""
_base_ = '../_base_/noisy_label/wrn16-2-half_wrn10-1-half_samples_sym40.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=1))
