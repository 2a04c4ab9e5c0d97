r"""WRN-28-4 -> WRN-16-2 by the MSE between logits on 10 % of each class, 40 % noise, 200 epochs.

    python tools/train.py configs/noisy_label/wrn28-4-half_wrn16-2-half_mse_samples_sym40.py \
        --train-teacher --fast
"""
_base_ = '../_base_/noisy_label/wrn28-4-half_wrn16-2-half_samples_sym40.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))
