"""WRN-28-4 -> WRN-16-2 on CIFAR-100 by attention transfer.

Zagoruyko and Komodakis, ICLR 2017, joint form: Table 2, first row. Needs the extra `methods`.

    python tools/train.py configs/methods/wrn28-4_wrn16-2_at.py --train-teacher
"""
_base_ = '../_base_/kd/wrn28-4_wrn16-2.py'
model = dict(
    teacher=dict(cache=None),  # features are not kept
    alpha=0.0,
    feature_kd=[
        dict(
            student=f'backbone.groups.{i}',
            teacher=f'backbone.groups.{i}',
            loss=dict(type='mmkd_logit.TorchdistillLoss', name='ATLoss', mode='code'),
            weight=1000.) for i in range(3)
    ])
