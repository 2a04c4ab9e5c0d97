"""scikit-learn's 1,797 digits, 8x8 grey, in memory; val is for choosing, test for reporting."""
data_preprocessor = dict(
    type='mmkd_logit.BatchPreprocessor', num_classes=10, mean=[77.8], std=[95.9], to_rgb=False)
train_dataloader = dict(
    batch_size=64, num_workers=0,
    dataset=dict(
        type='mmkd_logit.InMemoryDataset',
        dataset=dict(
            type='mmkd_logit.Digits', split='train',
            pipeline=[
                dict(type='mmpretrain.RandomCrop', crop_size=8, padding=1),
                dict(type='mmpretrain.PackInputs')])),
    sampler=dict(
        type='mmkd_logit.SeededSampler', sampler=dict(type='mmengine.DefaultSampler')),
    collate_fn=dict(type='mmkd_logit.batch_collate'))
val_dataloader = dict(
    batch_size=256, num_workers=0,
    dataset=dict(
        type='mmkd_logit.InMemoryDataset',
        pipeline=[dict(type='mmpretrain.PackInputs')],
        dataset=dict(type='mmkd_logit.Digits', split='val')),
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    collate_fn=dict(type='mmkd_logit.batch_collate'))
val_evaluator = [
    dict(type='mmpretrain.Accuracy', topk=(1, 5)), dict(type='mmkd_logit.TeacherAgreement'),
    dict(type='mmkd_logit.TeacherAccuracy'), dict(type='mmkd_logit.LogitStatistics')]
test_dataloader = dict(
    batch_size=256, num_workers=0,
    dataset=dict(
        type='mmkd_logit.InMemoryDataset',
        pipeline=[dict(type='mmpretrain.PackInputs')],
        dataset=dict(type='mmkd_logit.Digits', split='test')),
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    collate_fn=dict(type='mmkd_logit.batch_collate'))
test_evaluator = [
    *val_evaluator,
    dict(type='mmkd_logit.LogitDistance'), dict(type='mmkd_logit.PerClassAccuracy'),
    *[dict(type='mmkd_logit.ExpectedCalibrationError', of=of, binning=binning)
      for of in ('student', 'teacher') for binning in ('width', 'mass')],
    *[dict(type='mmkd_logit.NegativeLogLikelihood', of=of) for of in ('student', 'teacher')]]
