"""WRN-16-2 on 8x8 digits with 40 % symmetric label noise: the teacher. Seconds on a CPU.

    python tools/train.py configs/noisy_label/wrn16-2_sym40_digits.py
"""
_base_ = ['../wrn/wrn16-2_digits.py', '../_base_/noisy_label/train_evaluator.py']
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.NoisyLabelDataset',
        kind='symmetric',
        rate=0.4,
        seed=0,
        dataset={{_base_.train_dataloader.dataset}}))
