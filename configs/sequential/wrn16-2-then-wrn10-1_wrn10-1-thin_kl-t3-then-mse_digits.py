"""WRN-16-2, then WRN-10-1 -> thin WRN-10-1 on 8x8 digits in one run: KL at tau = 3, then MSE.

Teacher and loss change after 15 of 30 epochs. Seconds on a CPU.

    python tools/train.py \
        configs/sequential/wrn16-2-then-wrn10-1_wrn10-1-thin_kl-t3-then-mse_digits.py \
        --train-teacher
"""
_base_ = '../kd/wrn16-2_wrn10-1-thin_kl-t3_digits.py'
custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='mmkd_logit.SequentialTeacherHook',
        stages=[
            dict(
                begin=15,
                teacher=dict(
                    config='mmkd_logit::wrn/wrn10-1_digits.py',
                    checkpoint='work_dirs/wrn10-1_digits/seed0/final.pth'),
                loss_kd=dict(type='mmkd_logit.LogitMSELoss'))
        ])
]
