"""WRN-10-1 on CIFAR-100 with 40 % symmetric label noise: a small student for a CPU.

    python tools/train.py configs/noisy_label/wrn10-1_sym40.py
"""
_base_ = ['../wrn/wrn10-1.py', '../_base_/noisy_label/train_evaluator.py']
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.NoisyLabelDataset',
        kind='symmetric',
        rate=0.4,
        seed=0,
        dataset={{_base_.train_dataloader.dataset}}))
