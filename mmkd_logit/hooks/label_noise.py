"""Logging the label noise of a run."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_logit.datasets.wrapper import describe_data
from mmkd_logit.registry import HOOKS


@HOOKS.register_module()
class LabelNoiseHook(Hook):
    """Log which labels a run learns from.

    It describes every :class:`NoisyLabelDataset` and :class:`DataSubset` of the training data,
    wherever it stands, in ``meta['dataset_meta']`` of checkpoints, under ``label_noise`` and
    ``data_subset``. It does nothing where neither is used. ``tools/train.py`` adds this hook, and
    refuses to resume a run with other images or labels.
    """

    changes_training = False
    priority = "HIGH"

    def before_train(self, runner: Runner) -> None:
        """Log the noise."""
        labels = train_metainfo(runner).get("label_noise")
        if labels is not None:
            runner.logger.info(f"Training labels: {_in_words(labels)}")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Describe the labels and the part of the data."""
        said = train_metainfo(runner)
        if said:
            meta = checkpoint["meta"]
            meta["dataset_meta"] = {**(meta.get("dataset_meta") or {}), **said}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Leave what the data set itself says, with which MMEngine compares it on resuming."""
        saved = checkpoint.get("meta", {}).get("dataset_meta") or {}
        for key in ("label_noise", "data_subset"):
            saved.pop(key, None)


def train_metainfo(runner: Runner) -> dict[str, Any]:
    """Return ``label_noise`` and ``data_subset`` of a run's training data, where there are any."""
    loader = getattr(runner, "train_dataloader", None)
    return describe_data(getattr(loader, "dataset", None))


def _in_words(description: dict | None) -> str:
    """Describe noise or a part in a line."""
    if description is None:
        return "the data set's own"
    words = [f"SHA-256 {description['sha256'][:16]}", f"{description['samples']} samples"]
    if "parts" in description:
        words += [f"joined of ({_in_words(part)})" for part in description["parts"]]
    if "kind" in description:
        words.insert(0, f"{description['kind']} noise, {description['realised_rate']:.2%} wrong")
    for name in ("rate", "seed"):
        if description.get(name) is not None:
            words.append(f"{name} {description[name]}")
    return ", ".join(words)
