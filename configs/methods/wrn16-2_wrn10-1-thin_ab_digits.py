"""WRN-16-2 -> thin WRN-10-1 on 8x8 digits by activation boundaries.

Heo et al., AAAI 2019, joint form. Needs the extra `methods`. Seconds on a CPU.

    python tools/train.py configs/methods/wrn16-2_wrn10-1-thin_ab_digits.py --train-teacher
"""
_base_ = '../_base_/kd/wrn16-2_wrn10-1-thin_digits.py'
model = dict(
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
            ('backbone.groups.1.0.norm1', 4, 32, 0.25),
            ('backbone.groups.2.0.norm1', 8, 64, 0.5),
            ('backbone.norm', 16, 128, 1.0)
        ]
    ])
