"""What a cache gives is what the teacher gives, bit for bit, or an error."""

import copy
import itertools

import numpy as np
import pytest
import torch
from networks import build, wrn
from torch import nn

from mmkd_logit.datasets.views import Views
from mmkd_logit.models import FrozenTeacher

IMAGES, VIEWS = 40, 9
_number = itertools.count()
PREPROCESSOR = dict(type="mmpretrain.ClsDataPreprocessor", mean=[120.0] * 3, std=[60.0] * 3)


def lively(network, seed=5):
    """Give batch norm statistics and gains as after training."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.normal_(1, 0.3, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
    return network


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """Configs of a WRN-10-1 and a WRN-16-2 with checkpoints."""
    folder = tmp_path_factory.mktemp("networks")
    made = {}
    for depth, widen in ((10, 1), (16, 2)):
        config = wrn(depth, widen, num_classes=10, base_channels=16)
        config["data_preprocessor"] = copy.deepcopy(PREPROCESSOR)
        path = folder / f"wrn{depth}-{widen}.pth"
        torch.save(lively(build(config, seed=depth)).state_dict(), path)
        made[depth] = dict(config=config, checkpoint=str(path))
    return made


def teacher_of(spec, tmp_path=None, mean=120.0, **cache):
    """A teacher, told what its images look like."""
    options = {"storage": "memory", **cache}
    if tmp_path is not None:
        options.setdefault("root", str(tmp_path))
    teacher = FrozenTeacher(dict(spec, cache=options))
    student = build(wrn(num_classes=10, data_preprocessor=dict(PREPROCESSOR, mean=[mean] * 3)))
    teacher.expect_inputs_of(student.data_preprocessor)
    return teacher


def pictures_of(index, view, seed=0, size=8):
    """The same picture for the same numbers."""
    every = torch.randn(
        IMAGES * VIEWS, 3, size, size, generator=torch.Generator().manual_seed(seed)
    )
    return every[torch.from_numpy(index * VIEWS + view)]


def batch_of(n=128, seed=0, pictures="of a test"):
    """Different pictures and their numbers."""
    numbers = np.random.default_rng(seed).permutation(IMAGES * VIEWS)[:n]
    index, view = np.divmod(numbers, VIEWS)
    return pictures_of(index, view), Views(pictures, IMAGES, VIEWS, index, view)


def part(views, rows):
    return Views(
        views.pictures, views.samples, views.per_sample, views.index[rows], views.view[rows]
    )


STORAGES = ("memory", "disk", "device")
COMPUTED = (
    dict(),
    dict(channels_last=True),
    dict(autocast="bfloat16"),
    dict(autocast="bfloat16", channels_last=True),
)


@pytest.mark.parametrize("depth", [10, 16])
@pytest.mark.parametrize("options", COMPUTED, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_hit_and_miss_cold_and_warm_give_the_same_bits(networks, tmp_path, depth, options, dtype):
    spec = dict(networks[depth], **options)
    inputs, views = batch_of()
    cold = teacher_of(spec, tmp_path, storage="disk", dtype=dtype)
    expected = cold(inputs, views)
    assert (cold.cache.hits, cold.cache.misses) == (0, 128)
    assert expected.dtype == torch.float32
    assert torch.equal(cold(inputs, views), expected)
    assert (cold.cache.hits, cold.cache.misses) == (128, 128)
    warm = teacher_of(spec, tmp_path, storage="disk", dtype=dtype)
    assert torch.equal(warm(inputs, views), expected)
    assert (warm.cache.hits, warm.cache.misses) == (128, 0)
    # The cache changes nothing but for what is said: rounding to dtype.
    plain = FrozenTeacher(dict(spec, micro_batch=32))
    plain.expect_inputs_of(cold.model.data_preprocessor)
    assert torch.equal(plain(inputs).to(getattr(torch, dtype)).float(), expected)
    for storage in STORAGES:
        for seed, missing in enumerate((1, 5, 127)):
            for rows in (
                np.arange(missing),
                np.arange(128 - missing, 128),
                np.random.default_rng(seed).permutation(128)[:missing],
            ):
                mixed = teacher_of(
                    spec, tmp_path / str(next(_number)), storage=storage, dtype=dtype
                )
                rest = np.setdiff1d(np.arange(128), rows)
                mixed(inputs[rest], part(views, rest))
                assert torch.equal(mixed(inputs, views), expected)
                assert mixed.cache.misses == len(rest) + missing
                assert torch.equal(mixed(inputs, views), expected)
                assert mixed.cache.misses == 128
