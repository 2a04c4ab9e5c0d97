r"""WRN-16-2 -> WRN-10-1 by the MSE between logits on 10 % of each class, 40 % noise, 100 epochs.

    python tools/train.py configs/noisy_label/wrn16-2-half_wrn10-1-half_mse_samples_sym40.py \
        --train-teacher
"""
_base_ = '../_base_/noisy_label/wrn16-2-half_wrn10-1-half_samples_sym40.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))
