"""CIFAR-100 in memory; data_root from CIFAR100_ROOT, else data/cifar100 (downloads)."""
_base_ = 'mmpretrain::_base_/datasets/cifar100_bs16.py'
data_root = '{{$CIFAR100_ROOT:data/cifar100}}'
data_preprocessor = dict(type='mmkd_logit.BatchPreprocessor')
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.InMemoryDataset',
        device='auto',
        dataset=dict(
            type='mmpretrain.CIFAR100', data_root=data_root, split='train',
            pipeline={{_base_.train_pipeline}})),
    sampler=dict(
        _delete_=True,
        type='mmkd_logit.SeededSampler',
        sampler=dict(type='mmengine.DefaultSampler', shuffle=True)),
    collate_fn=dict(type='mmkd_logit.batch_collate'))
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.InMemoryDataset',
        device='auto',
        pipeline={{_base_.test_pipeline}},
        dataset=dict(type='mmpretrain.CIFAR100', data_root=data_root, split='test')),
    collate_fn=dict(type='mmkd_logit.batch_collate'))
val_evaluator = [
    dict(type='mmpretrain.Accuracy', topk=(1, 5)), dict(type='mmkd_logit.TeacherAgreement'),
    dict(type='mmkd_logit.TeacherAccuracy'), dict(type='mmkd_logit.LogitStatistics')]
test_dataloader = val_dataloader
test_evaluator = [
    *val_evaluator,
    dict(type='mmkd_logit.LogitDistance'), dict(type='mmkd_logit.PerClassAccuracy'),
    *[dict(type='mmkd_logit.ExpectedCalibrationError', of=of, binning=binning)
      for of in ('student', 'teacher') for binning in ('width', 'mass')],
    *[dict(type='mmkd_logit.NegativeLogLikelihood', of=of) for of in ('student', 'teacher')]]
