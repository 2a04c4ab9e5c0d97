"""WRN-28-4 -KL3-> WRN-16-4 -MSE-> WRN-16-2 on CIFAR-100: sequential distillation, the best row.

    python tools/train.py configs/sequential/chain_wrn28-4_wrn16-4_wrn16-2_kl-t3_mse.py
"""
stages = [
    dict(config='configs/wrn/wrn28-4.py'),
    dict(config='configs/kd/wrn28-4_wrn16-4_kl-t3.py'),
    dict(config='configs/kd/wrn16-4_wrn16-2_mse.py'),
]
