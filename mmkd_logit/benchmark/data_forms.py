"""The same data by mmpretrain's pipeline, or in memory."""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.config import Config

from mmkd_logit._arguments import type_name

_IN_MEMORY, _SEEDED, _SAMPLER = "InMemoryDataset", "SeededDataset", "SeededSampler"
_COLLATE = "mmkd_logit.batch_collate"
_PREPROCESSOR = "BatchPreprocessor"


def change_innermost(spec: Any, change: Callable[[Any], Any]) -> Any:
    """Return the config of a data set with the one that reads images changed.

    Args:
        spec: The config, perhaps of wrappers around wrappers.
        change: Gets and returns the config within.
    """
    if "dataset" in spec:
        return dict(spec, dataset=change_innermost(spec["dataset"], change))
    return change(spec)


def innermost(spec: Any) -> Any:
    """Return the config of the data set that reads images.

    Args:
        spec: The config, perhaps of wrappers around it.
    """
    while "dataset" in spec:
        spec = spec["dataset"]
    return spec


def by_pipeline(cfg: Config, workers: int = 0) -> Config:
    """Load training images one by one, with mmpretrain's pipeline and sampler.

    Args:
        cfg: Changed in place.
        workers: Of the data loader.
    """
    loader = cfg.train_dataloader
    loader.dataset = _without_ours(loader.dataset)
    if type_name(loader.sampler) == _SAMPLER:
        loader.sampler = loader.sampler.sampler
    loader.collate_fn = dict(type="default_collate")
    loader.num_workers = workers
    loader.persistent_workers = workers > 0
    loader.pin_memory = torch.cuda.is_available()
    if type_name(cfg.get("data_preprocessor")) == _PREPROCESSOR:
        cfg.data_preprocessor.type = "mmpretrain.ClsDataPreprocessor"
        cfg.data_preprocessor.pop("channels_last", None)
    return cfg


def in_memory(cfg: Config) -> Config:
    """Load training images from one tensor, batch by batch.

    Args:
        cfg: Changed in place.
    """
    if _has(cfg.train_dataloader.dataset, _IN_MEMORY):
        return cfg
    by_pipeline(cfg)
    loader = cfg.train_dataloader
    loader.dataset = change_innermost(
        loader.dataset,
        lambda spec: dict(type=f"mmkd_logit.{_IN_MEMORY}", device="auto", dataset=spec),
    )
    loader.sampler = dict(type=f"mmkd_logit.{_SAMPLER}", sampler=loader.sampler)
    loader.collate_fn = dict(type=_COLLATE)
    loader.pin_memory = False  # they are on the GPU already
    kind = f"mmkd_logit.{_PREPROCESSOR}"
    cfg.data_preprocessor = dict(cfg.get("data_preprocessor") or {}, type=kind)
    return cfg


def _without_ours(spec: Any) -> Any:
    if type_name(spec) in (_IN_MEMORY, _SEEDED):
        return _without_ours(spec["dataset"])
    return dict(spec, dataset=_without_ours(spec["dataset"])) if "dataset" in spec else spec


def _has(spec: Any, kind: str) -> bool:
    return type_name(spec) == kind or ("dataset" in spec and _has(spec["dataset"], kind))
