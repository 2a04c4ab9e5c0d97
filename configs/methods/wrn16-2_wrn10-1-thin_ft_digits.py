"""WRN-16-2 -> thin WRN-10-1 on 8x8 digits by factor transfer.

Kim et al., NeurIPS 2018, joint form. Needs the extra `methods`. Seconds on a CPU.

    python tools/train.py configs/methods/wrn16-2_wrn10-1-thin_ft_digits.py --train-teacher
"""
_base_ = '../_base_/kd/wrn16-2_wrn10-1-thin_digits.py'
model = dict(
    alpha=0.0,
    feature_kd=[
        dict(
            student='backbone.groups.2',
            teacher='backbone.groups.2',
            loss=dict(type='mmkd_logit.TorchdistillLoss', name='FTLoss', p=1),
            weight=500.,
            student_adapter=dict(
                type='mmkd_logit.TorchdistillAdapter', name='Translator4FactorTransfer',
                num_input_channels=16, num_output_channels=64),
            teacher_adapter=dict(
                type='mmkd_logit.TorchdistillAdapter', name='Paraphraser4FactorTransfer',
                k=0.5, num_input_channels=128))
    ])
