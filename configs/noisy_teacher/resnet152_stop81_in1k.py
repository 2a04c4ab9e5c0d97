"""ResNet-152 on ImageNet, stopped at a train accuracy of 81.16 %: the paper's noisy teacher.

It is that of a random 25th of the training images (51,246, always the same), cropped in the
middle, looked at after every epoch: its standard error is 0.17 points, at the cost of a validation.

    tools/dist_train.sh configs/noisy_teacher/resnet152_stop81_in1k.py 8
"""
_base_ = '../resnet/resnet152_in1k.py'
val_dataloader = dict(
    dataset=dict(
        _delete_=True, type='mmpretrain.KFoldDataset',
        num_splits=25, fold=0, test_mode=True, seed=0,
        dataset=dict(
            type='mmpretrain.ImageNet', data_root={{_base_.data_root}}, split='train',
            pipeline={{_base_.test_pipeline}})))
custom_hooks = [
    dict(type='mmkd_logit.FinalCheckpointHook'),
    dict(
        type='mmengine.EarlyStoppingHook', monitor='accuracy/top1', rule='greater',
        stopping_threshold=81.16, patience=1_000_000, strict=True)
]
