"""WRN-16-2 -> thin WRN-10-1 on 8x8 digits by FitNets' hint.

Romero et al., ICLR 2015, joint form. Needs the extra `methods`. Seconds on a CPU.

    python tools/train.py configs/methods/wrn16-2_wrn10-1-thin_fitnets_digits.py --train-teacher
"""
_base_ = '../_base_/kd/wrn16-2_wrn10-1-thin_digits.py'
model = dict(
    alpha=0.0,
    feature_kd=[
        dict(
            student='backbone.groups.1',
            teacher='backbone.groups.1',
            loss=dict(type='mmkd_logit.TorchdistillLoss', name='MSELoss'),
            weight=100.,
            student_adapter=dict(
                type='mmkd_logit.TorchdistillAdapter', name='ConvReg',
                num_input_channels=8, num_output_channels=64, kernel_size=1, stride=1,
                padding=0))
    ])
