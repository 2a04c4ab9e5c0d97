"""WRN-16-2 -MSE-> WRN-10-1 -KL3-> thin WRN-10-1 on 8x8 digits. A minute or two on a CPU.

    python tools/train.py \
        configs/sequential/chain_wrn16-2_wrn10-1_wrn10-1-thin_mse_kl-t3_digits.py \
        --train-teacher
"""
_base_ = '../kd/wrn10-1_wrn10-1-thin_kl-t3_digits.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::kd/wrn16-2_wrn10-1_mse_digits.py',
        checkpoint='work_dirs/wrn16-2_wrn10-1_mse_digits/seed0/final.pth'))
