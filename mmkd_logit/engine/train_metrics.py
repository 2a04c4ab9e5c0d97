"""How well a network knows the images it was trained on."""

import copy
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner, TestLoop


def training_data_loader(cfg: Config) -> dict[str, Any]:
    """Return the config of a loader of the training images, in order and un-augmented.

    It is ``test_dataloader`` with the data set of ``train_dataloader`` (its wrappers included:
    noisy labels stay noisy) under the pipeline of the test images.

    Args:
        cfg: A complete config.

    Raises:
        ValueError: If one of the two data sets has no pipeline to take or to replace.
    """
    loader = copy.deepcopy(cfg.test_dataloader.to_dict())
    pipelines = _with_pipeline(loader["dataset"])
    dataset = copy.deepcopy(cfg.train_dataloader.dataset.to_dict())
    places = _with_pipeline(dataset)
    if not pipelines or not places:
        raise ValueError(
            "the training data cannot be read un-augmented: train_dataloader.dataset or "
            "test_dataloader.dataset has no pipeline"
        )
    for place in places:
        place["pipeline"] = copy.deepcopy(pipelines[0]["pipeline"])
    if "collate_fn" in cfg.train_dataloader:  # it knows what the data set's wrappers make
        loader["collate_fn"] = copy.deepcopy(cfg.train_dataloader.collate_fn)
    return {**loader, "dataset": dataset}


def _with_pipeline(dataset: Any) -> list[dict]:
    """List the innermost data sets, below any wrappers."""
    if isinstance(dataset, (list, tuple)):
        return [place for item in dataset for place in _with_pipeline(item)]
    if not isinstance(dataset, dict):
        return []
    inner = [dataset[key] for key in ("dataset", "datasets") if key in dataset]
    return _with_pipeline(inner) if inner else [dataset] if "pipeline" in dataset else []


def training_metrics(runner: Runner) -> dict[str, Any]:
    """Evaluate on the training images, un-augmented, each once.

    Args:
        runner: After training and testing. ``train_evaluator`` of its config, or else
            ``test_evaluator``, says what is measured.

    Returns:
        The metrics.
    """
    cfg = runner.cfg
    evaluator = cfg.get("train_evaluator") or cfg.test_evaluator
    test_loop = runner._test_loop
    runner._test_loop = TestLoop(
        runner, dataloader=training_data_loader(cfg), evaluator=copy.deepcopy(evaluator)
    )
    try:
        return runner._test_loop.run()
    finally:
        runner._test_loop = test_loop
