r"""Under-trained WRN-16-2 -> WRN-10-1 by the MSE between logits on 10 % of each class, 100 epochs.

    python tools/train.py \
        configs/noisy_teacher/wrn16-2-half-stop53_wrn10-1-half_mse_samples.py --train-teacher
"""
_base_ = '../_base_/kd/wrn16-2-half-stop53_wrn10-1-half_samples.py'
model = dict(loss_kd=dict(type='mmkd_logit.LogitMSELoss'))
