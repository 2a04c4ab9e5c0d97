"""WRN-16-2 -> thin WRN-10-1 on 8x8 digits by attention transfer.

Zagoruyko and Komodakis, ICLR 2017, joint form. Needs the extra `methods`. Seconds on a CPU.

    python tools/train.py configs/methods/wrn16-2_wrn10-1-thin_at_digits.py --train-teacher
"""
_base_ = '../_base_/kd/wrn16-2_wrn10-1-thin_digits.py'
model = dict(
    alpha=0.0,
    feature_kd=[
        dict(
            student=f'backbone.groups.{i}',
            teacher=f'backbone.groups.{i}',
            loss=dict(type='mmkd_logit.TorchdistillLoss', name='ATLoss', mode='code'),
            weight=62.5) for i in range(3)
    ])
