"""CIFAR-100 in batches of 128; data_root from CIFAR100_ROOT, else data/cifar100 (downloads)."""
_base_ = 'mmpretrain::_base_/datasets/cifar100_bs16.py'
data_root = '{{$CIFAR100_ROOT:data/cifar100}}'
train_dataloader = dict(batch_size=128, num_workers=2, dataset=dict(data_root=data_root))
val_dataloader = dict(batch_size=500, num_workers=2, dataset=dict(data_root=data_root))
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = [val_evaluator, dict(type='mmkd_logit.ExpectedCalibrationError')]
