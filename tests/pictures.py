"""Data sets of random pictures, and mmpretrain's transforms with given parameters."""

from typing import ClassVar

import numpy as np
import torch
from mmcv.transforms import RandomFlip
from mmengine.registry import init_default_scope
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
