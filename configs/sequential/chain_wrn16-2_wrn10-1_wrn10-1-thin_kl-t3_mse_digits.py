"""WRN-16-2 -KL3-> WRN-10-1 -MSE-> thin WRN-10-1 on 8x8 digits. A minute or two on a CPU.

    python tools/train.py \
        configs/sequential/chain_wrn16-2_wrn10-1_wrn10-1-thin_kl-t3_mse_digits.py \
        --train-teacher
"""
_base_ = '../kd/wrn10-1_wrn10-1-thin_mse_digits.py'
model = dict(
    teacher=dict(
        config='mmkd_logit::kd/wrn16-2_wrn10-1_kl-t3_digits.py',
        checkpoint='work_dirs/wrn16-2_wrn10-1_kl-t3_digits/seed0/final.pth'))
