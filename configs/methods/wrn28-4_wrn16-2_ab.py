"""WRN-28-4 -> WRN-16-2 on CIFAR-100 by activation boundaries.

Heo et al., AAAI 2019, joint form: Table 2, first row. Needs the extra `methods`.

    python tools/train.py configs/methods/wrn28-4_wrn16-2_ab.py --train-teacher
"""
_base_ = '../_base_/kd/wrn28-4_wrn16-2.py'
model = dict(
    teacher=dict(cache=None),  # features are not kept
    alpha=0.0,
    feature_kd=[
        dict(
            student=path,
            teacher=path,
            loss=dict(type='mmkd_logit.TorchdistillLoss', name='AltActTransferLoss', margin=1.),
            weight=0.003 * share,
            student_adapter=dict(
                type='mmkd_logit.TorchdistillAdapter', name='ConvReg', num_input_channels=narrow,
                num_output_channels=wide, kernel_size=1, stride=1, padding=0, uses_relu=False))
        for path, narrow, wide, share in [  # before a ReLU; channels; share of the weight
            ('backbone.groups.1.0.norm1', 32, 64, 0.25),
            ('backbone.groups.2.0.norm1', 64, 128, 0.5),
            ('backbone.norm', 128, 256, 1.0)
        ]
    ])
