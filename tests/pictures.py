"""Data sets of random pictures, and mmpretrain's transforms with given parameters."""

from typing import ClassVar

import numpy as np
import torch
from mmcv.transforms import RandomFlip
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.datasets import BaseDataset
from mmpretrain.datasets.transforms import RandomCrop

from mmkd_logit.datasets import SampleKey

PACK = dict(type="PackInputs")
CROP = dict(type="RandomCrop", crop_size=32, padding=4)
FLIP = dict(type="RandomFlip", prob=0.5, direction="horizontal")


class Pictures(BaseDataset):
    """Random pictures; the shape of each may be its own."""

    METAINFO: ClassVar[dict] = dict(classes=["a", "b", "c"])

    def __init__(self, *shapes, pipeline=(PACK,), **kwargs):
        init_default_scope("mmpretrain")
        generator = np.random.default_rng(0)
        self.images = [generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
        super().__init__(ann_file="", pipeline=list(pipeline), **kwargs)

    def load_data_list(self):
        return [dict(img=image, gt_label=i % 3) for i, image in enumerate(self.images)]


SEEDED = dict(type="mmkd_logit.SeededSampler", sampler=dict(type="DefaultSampler", shuffle=True))


def loader_of(dataset, seed=0, **settings):
    init_default_scope("mmpretrain")
    cfg = dict(
        dataset=dataset,
        sampler=SEEDED,
        collate_fn=dict(type="mmkd_logit.batch_collate"),
        batch_size=100,
        num_workers=0,
    )
    return Runner.build_dataloader({**cfg, **settings}, seed=seed)


def seen(loader, epoch=0):
    """Picture, label and view (if numbered) of each sample, over an epoch."""
    sampler = loader.sampler if hasattr(loader.sampler, "set_epoch") else None
    (sampler or loader.batch_sampler.sampler).set_epoch(epoch)
    table = {}
    for batch in loader:
        samples, views = batch["data_samples"], getattr(batch["data_samples"], "views", None)
        numbers = [None] * len(samples) if views is None else views.view.tolist()
        for image, sample, view in zip(batch["inputs"], samples, numbers, strict=True):
            table[sample.sample_idx] = image.numpy().tobytes(), int(sample.gt_label), view
    return table


def keys_of(indices, seed=5, epoch=2):
    return [SampleKey(seed, epoch, int(index)) for index in indices]


def stock_picture(monkeypatch, stock, index, chosen):
    """Run mmpretrain's own pipeline, in which only the drawing is replaced.

    Args:
        chosen: For each random transform (top, left) or a direction or None, in order.
    """
    left = list(chosen)

    def crop_with(crop):
        def parameters(img):
            sizes = (min(a, b) for a, b in zip(crop.crop_size, img.shape[:2], strict=True))
            return *left.pop(0), *sizes

        return parameters

    with monkeypatch.context() as patch:
        for step in stock.pipeline.transforms:
            if type(step) is RandomCrop:
                patch.setitem(vars(step), "rand_crop_params", crop_with(step))
            if type(step) is RandomFlip:
                patch.setitem(vars(step), "_choose_direction", lambda: left.pop(0))
        picture = stock[index]["inputs"]
    assert not left
    return picture


def same_pictures(batch, pictures):
    return torch.equal(batch["inputs"], torch.stack(list(pictures)))
