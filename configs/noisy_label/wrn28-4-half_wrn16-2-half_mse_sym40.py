r"""WRN-28-4 -> WRN-16-2 at half resolution by the MSE between logits, 40 % label noise, 30 epochs.

    python tools/train.py configs/noisy_label/wrn28-4-half_wrn16-2-half_mse_sym40.py \
        --train-teacher --fast
"""
_base_ = '../_base_/noisy_label/wrn28-4-half_wrn16-2-half_sym40.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))
