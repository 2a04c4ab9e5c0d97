"""WRN-28-4 -> WRN-16-2 on CIFAR-100 by FitNets' hint.

Romero et al., ICLR 2015, joint form: Table 2, first row. Needs the extra `methods`.

    python tools/train.py configs/methods/wrn28-4_wrn16-2_fitnets.py --train-teacher
"""
_base_ = '../_base_/kd/wrn28-4_wrn16-2.py'
model = dict(
    teacher=dict(cache=None),  # features are not kept
    alpha=0.0,
    feature_kd=[
        dict(
            student='backbone.groups.1',
            teacher='backbone.groups.1',
            loss=dict(type='mmkd_logit.TorchdistillLoss', name='MSELoss'),
            weight=100.,
            student_adapter=dict(
                type='mmkd_logit.TorchdistillAdapter', name='ConvReg',
                num_input_channels=64, num_output_channels=128, kernel_size=1, stride=1,
                padding=0))
    ])
