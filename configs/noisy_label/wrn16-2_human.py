"""WRN-16-2 on CIFAR-100N, CIFAR-100 with the labels that people gave: the student, alone.

    python tools/train.py configs/noisy_label/wrn16-2_human.py
"""
_base_ = ['../wrn/wrn16-2.py', '../_base_/noisy_label/train_evaluator.py']
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.NoisyLabelDataset',
        kind='file',
        file='{{$CIFARN_LABELS:data/cifar100n/CIFAR-100_human.pt}}',
        key='{{$CIFARN_KEY:noisy_label}}',
        clean_key='{{$CIFARN_CLEAN_KEY:clean_label}}',
        dataset={{_base_.train_dataloader.dataset}}))
