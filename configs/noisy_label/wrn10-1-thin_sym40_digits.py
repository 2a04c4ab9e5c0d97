"""Thin WRN-10-1 on 8x8 digits with 40 % symmetric label noise: the student, alone.

    python tools/train.py configs/noisy_label/wrn10-1-thin_sym40_digits.py
"""
_base_ = ['../wrn/wrn10-1-thin_digits.py', '../_base_/noisy_label/train_evaluator.py']
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.NoisyLabelDataset',
        kind='symmetric',
        rate=0.4,
        seed=0,
        dataset={{_base_.train_dataloader.dataset}}))
