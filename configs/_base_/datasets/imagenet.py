"""ImageNet, 32 images a GPU; data_root from IMAGENET_ROOT, else data/imagenet."""
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs32.py'
data_root = '{{$IMAGENET_ROOT:data/imagenet}}'
data_preprocessor = dict(type='mmkd_logit.BatchPreprocessor')  # copies to the GPU without waiting
train_dataloader = dict(
    num_workers=12,
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.SeededDataset',
        dataset=dict(
            type='mmpretrain.ImageNet', data_root=data_root, split='train',
            pipeline={{_base_.train_pipeline}})),
    sampler=dict(
        _delete_=True,
        type='mmkd_logit.SeededSampler',
        sampler=dict(type='mmengine.DefaultSampler', shuffle=True)))
val_dataloader = dict(num_workers=12, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='mmpretrain.Accuracy', topk=(1, 5)), dict(type='mmkd_logit.TeacherAgreement'),
    dict(type='mmkd_logit.TeacherAccuracy'), dict(type='mmkd_logit.LogitStatistics')]
test_evaluator = [
    *val_evaluator,
    dict(type='mmkd_logit.LogitDistance'), dict(type='mmkd_logit.PerClassAccuracy'),
    *[dict(type='mmkd_logit.ExpectedCalibrationError', of=of, binning=binning)
      for of in ('student', 'teacher') for binning in ('width', 'mass')],
    *[dict(type='mmkd_logit.NegativeLogLikelihood', of=of) for of in ('student', 'teacher')]]
