r"""Under-trained WRN-28-4 -> WRN-16-2 on CIFAR-100 at half resolution by KL at tau = 20.

    python tools/train.py configs/noisy_teacher/wrn28-4-half-stop53_wrn16-2-half_kl-t20.py \
        --train-teacher --fast
"""
_base_ = '../_base_/kd/wrn28-4-half-stop53_wrn16-2-half.py'
model = dict(loss_kd=dict(type='mmkd_logit.ScaledKLDivLoss', tau=20))
