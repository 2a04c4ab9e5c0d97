r"""WRN-28-4 -> WRN-16-2 by KL at tau = 1 on 10 % of each class, 40 % label noise, 200 epochs.

    python tools/train.py configs/noisy_label/wrn28-4-half_wrn16-2-half_kl-t1_samples_sym40.py \
        --train-teacher --fast
"""
_base_ = '../_base_/noisy_label/wrn28-4-half_wrn16-2-half_samples_sym40.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=1))
