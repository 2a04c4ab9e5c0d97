"""WRN-28-4 -MSE-> WRN-16-4 -KL3-> WRN-16-2 on CIFAR-100: sequential distillation, MSE first.

    python tools/train.py \
        configs/sequential/chain_wrn28-4_wrn16-4_wrn16-2_mse_kl-t3.py \
        --train-teacher
"""
_base_ = '../kd/wrn16-4_wrn16-2_kl-t3.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::kd/wrn28-4_wrn16-4_mse.py',
        checkpoint='work_dirs/wrn28-4_wrn16-4_mse/seed0/final.pth'))
