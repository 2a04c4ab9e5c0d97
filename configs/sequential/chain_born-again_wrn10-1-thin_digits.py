"""Born again on 8x8 digits: thin WRN-10-1 by CE, then two generations by KL at tau = 3. Seconds.

    python tools/train.py configs/sequential/chain_born-again_wrn10-1-thin_digits.py --train-teacher
"""
_base_ = '../kd/wrn10-1-thin_wrn10-1-thin_kl-t3_digits.py'
generations = 2
