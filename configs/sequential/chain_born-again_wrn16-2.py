"""Born again: WRN-16-2 on CIFAR-100 by CE, then eight generations by KL at tau = 20.

    python tools/train.py configs/sequential/chain_born-again_wrn16-2.py --train-teacher
"""
_base_ = '../kd/wrn16-2_wrn16-2_kl-t20.py'
generations = 8
