"""ImageNet, 32 images a GPU; data_root from IMAGENET_ROOT, else data/imagenet."""
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs32.py'
data_root = '{{$IMAGENET_ROOT:data/imagenet}}'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='mmkd_logit.SeededDataset',
        dataset=dict(
            type='ImageNet', data_root=data_root, split='train',
            pipeline={{_base_.train_pipeline}})),
    sampler=dict(
        _delete_=True,
        type='mmkd_logit.SeededSampler',
        sampler=dict(type='DefaultSampler', shuffle=True)))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
