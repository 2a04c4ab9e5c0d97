"""WRN of the paper with a linear classifier; set depth, widen_factor and in_channels = 64 k."""
model = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='mmkd_logit.WideResNetCIFAR'),
    neck=dict(type='mmpretrain.GlobalAveragePooling'),
    head=dict(
        type='mmpretrain.LinearClsHead',
        num_classes=100,
        loss=dict(type='mmpretrain.CrossEntropyLoss'),
        # torch's own initialisation of the weight (uniform, 1/sqrt(fan in)), but bias 0.
        init_cfg=dict(
            type='mmengine.Kaiming', layer='Linear', a=5**0.5, mode='fan_in',
            nonlinearity='leaky_relu', distribution='uniform', bias=0)))
