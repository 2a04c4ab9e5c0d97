"""Logging the label noise of a run."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_logit.datasets.wrapper import describe_data
from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import check_flag


@HOOKS.register_module()
class LabelNoiseHook(Hook):
    """Log which labels a run learns from, and refuse to resume it with others.

    It describes every :class:`NoisyLabelDataset` and :class:`DataSubset` of the training data,
    wherever it stands, in ``meta['dataset_meta']`` of checkpoints, under ``label_noise`` and
    ``data_subset``. It does nothing where neither is used, now or in the checkpoint.
    ``tools/train.py`` adds this hook by itself.

    Args:
        resume_changed: Whether a run may be resumed with others all the same; they are logged.

    Raises:
        ValueError: If ``resume_changed`` is neither True nor False; when a run is resumed with
            other labels or another part of the data.
    """

    changes_training = False
    priority = "HIGH"

    def __init__(self, resume_changed: bool = False) -> None:
        self.resume_changed = check_flag("resume_changed", resume_changed)

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
        """Compare the labels; MMEngine has built the training data by now."""
        if not runner._resume:
            return
        # Taken away, since MMEngine warns where the rest is not the data set's own metainfo.
        saved = checkpoint.get("meta", {}).get("dataset_meta") or {}
        theirs = {key: saved.pop(key, None) for key in ("label_noise", "data_subset")}
        ours = train_metainfo(runner)
        for key, what in (("label_noise", "labels"), ("data_subset", "samples")):
            before, now = theirs.get(key), ours.get(key)
            if (before or {}).get("sha256") != (now or {}).get("sha256"):
                difference = (
                    f"other training {what}: the checkpoint's are {_in_words(before)}, the "
                    f"config's {_in_words(now)}"
                )
                if not self.resume_changed:
                    raise ValueError(
                        f"cannot resume with {difference}; restore the settings of "
                        "train_dataloader.dataset, or begin a new run in another work folder"
                    )
                runner.logger.warning(f"Going on with {difference}")


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
