"""WRN-28-4 -KL3-> WRN-16-4 -MSE-> WRN-16-2 on CIFAR-100: sequential distillation, the best row.

    python tools/train.py \
        configs/sequential/chain_wrn28-4_wrn16-4_wrn16-2_kl-t3_mse.py \
        --train-teacher
"""
_base_ = '../kd/wrn16-4_wrn16-2_mse.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::kd/wrn28-4_wrn16-4_kl-t3.py',
        checkpoint='work_dirs/wrn28-4_wrn16-4_kl-t3/seed0/final.pth'))
