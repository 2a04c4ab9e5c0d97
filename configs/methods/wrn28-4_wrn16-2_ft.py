"""WRN-28-4 -> WRN-16-2 on CIFAR-100 by factor transfer.

Kim et al., NeurIPS 2018, joint form: Table 2, first row. Needs the extra `methods`.

    python tools/train.py configs/methods/wrn28-4_wrn16-2_ft.py --train-teacher
"""
_base_ = '../_base_/kd/wrn28-4_wrn16-2.py'
model = dict(
    teacher=dict(cache=None),  # features are not kept
    alpha=0.0,
    feature_kd=[
        dict(
            student='backbone.groups.2',
            teacher='backbone.groups.2',
            loss=dict(type='mmkd_logit.TorchdistillLoss', name='FTLoss', p=1),
            weight=500.,
            student_adapter=dict(
                type='mmkd_logit.TorchdistillAdapter', name='Translator4FactorTransfer',
                num_input_channels=128, num_output_channels=128),
            teacher_adapter=dict(
                type='mmkd_logit.TorchdistillAdapter', name='Paraphraser4FactorTransfer',
                k=0.5, num_input_channels=256))
    ])
