"""Small classifiers for tests."""

import copy

import torch
from mmengine.registry import DefaultScope, init_default_scope
from mmpretrain.structures import DataSample


def wrn(depth=10, widen_factor=1, num_classes=4, drop_rate=0.0, base_channels=4, **model):
    """Config of a thin WRN for 3x8x8 images."""
    return dict(
        type="mmpretrain.ImageClassifier",
        backbone=dict(
            type="mmkd_logit.WideResNetCIFAR",
            depth=depth,
            widen_factor=widen_factor,
            base_channels=base_channels,
            stem_channels=base_channels,
            drop_rate=drop_rate,
        ),
        neck=dict(type="mmpretrain.GlobalAveragePooling"),
        head=dict(
            type="mmpretrain.LinearClsHead",
            num_classes=num_classes,
            in_channels=4 * base_channels * widen_factor,
            loss=dict(type="mmpretrain.CrossEntropyLoss"),
        ),
        **copy.deepcopy(model),
    )


def distiller(student=None, teacher=None, **kwargs):
    """Config of a distiller with an untrained teacher."""
    return dict(
        type="mmkd_logit.LogitDistiller",
        student=student or wrn(),
        teacher=teacher or dict(config=wrn(widen_factor=2, drop_rate=0.5), checkpoint=None),
        **{"loss_kd": dict(type="mmkd_logit.LogitMSELoss"), **kwargs},
    )


def build(cfg, seed=0):
    from mmengine.registry import MODELS

    torch.manual_seed(seed)
    if DefaultScope.get_current_instance() is None:
        init_default_scope("mmpretrain")
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model


def batch(n=6, num_classes=4, channels=3, size=8, seed=1):
    """Images (N, C, H, W) and their samples."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, channels, size, size, generator=generator)
    labels = torch.randint(num_classes, (n,), generator=generator)
    return inputs, [DataSample().set_gt_label(int(label)) for label in labels]


def raw_batch(n=6, num_classes=4, channels=3, size=8, seed=1):
    """What a dataloader gives: uint8 images and samples."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(256, (n, channels, size, size), generator=generator, dtype=torch.uint8)
    return dict(inputs=inputs, data_samples=batch(n, num_classes, seed=seed)[1])
