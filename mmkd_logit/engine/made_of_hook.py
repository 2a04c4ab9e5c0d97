"""Runs do not go on from checkpoints of other runs unnoticed."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_logit._arguments import type_name

from .checkpoint import read_lazily
from .config import seed_of
from .last_checkpoint import last_checkpoint
from .provenance import dataset_hash
from .run_identity import list_changes

MADE_OF = "made_of"
_RESUMABLE = {"optimizer", "meta", "message_hub"}  # what only a checkpoint to resume has
_SHOWN = 8  # differences in one message


def allow_other_labels(cfg: Config) -> None:
    """Let :class:`~mmkd_logit.hooks.LabelNoiseHook` accept labels other than the checkpoint's.

    Args:
        cfg: With its hooks; changed in place.
    """
    for hook in cfg.custom_hooks:
        if type_name(hook) == "LabelNoiseHook":
            hook["resume_changed"] = True


class MadeOfHook(Hook):
    """Say in checkpoints what their run is made of, and refuse to resume another run's.

    Looked at are the config, the seed, the content of teachers' and of label files, and the
    training data's pictures and labels.

    Args:
        computed: The content of this run, as of
            :func:`~mmkd_logit.engine.fingerprint.computed_content`.
        resume_changed: Whether to go on from another run's checkpoint; what has changed is then
            logged.
    """

    priority = "ABOVE_NORMAL"  # LabelNoiseHook knows more of labels, and comes first

    def __init__(self, computed: dict[str, Any], resume_changed: bool = False) -> None:
        self.computed = computed
        self.resume_changed = resume_changed
        self._looked = False
        self._changes: list[str] = []
        self._data: list[str | None] = []

    def look_ahead(self, cfg: Config) -> None:
        """Look into the checkpoint before anything is built or written.

        The run takes the checkpoint's seed, as MMEngine does, but before the data loader is made.

        Args:
            cfg: With ``resume`` and ``load_from``; changed in place.

        Raises:
            FileNotFoundError: If the checkpoint does not exist.
            ValueError: If it cannot be resumed, or is another run's.
        """
        path = cfg.get("load_from") or last_checkpoint(cfg.work_dir)
        if not cfg.get("resume") or path is None or "://" in str(path):
            return
        checkpoint = read_lazily(str(path))
        self._look(checkpoint, str(path))
        seed = checkpoint["meta"].get("seed")
        if type(seed) is int and seed != seed_of(cfg):
            cfg.randomness = dict(cfg.get("randomness") or {}, seed=seed)

    def _look(self, checkpoint: Any, path: str) -> None:
        if not isinstance(checkpoint, dict) or not set(checkpoint) >= _RESUMABLE:
            raise ValueError(
                f"{path} holds weights alone and cannot be resumed; take an epoch_N.pth, or set "
                "load_from to begin a new training with these weights"
            )
        self._looked = True
        if MADE_OF in checkpoint:
            made_of = checkpoint[MADE_OF]
            if isinstance(made_of, dict) and "config" in made_of:
                changes = ["the version of mmkd_logit (0.1.0), whose settings cannot be compared"]
            else:
                content = made_of.get("computed") if isinstance(made_of, dict) else None
                changes = list_changes(content, self.computed)
            self._settle(changes, path)

    def _settle(self, changes: list[str], path: str) -> None:
        if changes and not self.resume_changed:
            more = [f"and {len(changes) - _SHOWN} more"] if len(changes) > _SHOWN else []
            raise ValueError(
                f"{path} is of a run that differs in {'; '.join([*changes[:_SHOWN], *more])}. "
                "Restore that, begin a new run in another --work-dir, or go on all the same with "
                "--resume-changed"
            )
        self._changes += changes

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the data, which have been read by now."""
        if not runner._resume:
            return
        path = str(runner._load_from)
        if not self._looked:
            self._look(checkpoint, path)
        if MADE_OF not in checkpoint:
            runner.logger.warning(
                f"{Path(path).name} does not say of what run it is; nothing is compared with it"
            )
            return
        self._read_data(runner)
        broadcast_object_list(self._data)  # the first process has read it for all
        before, now = checkpoint[MADE_OF].get("data"), self._data[0]
        if before is not None and before != now:
            self._settle([f"the training images or labels (hash {before} -> {now})"], path)
        if self._changes:
            runner.logger.warning(f"Going on all the same with {'; '.join(self._changes)}")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Say of what run it is."""
        if "optimizer" in checkpoint:
            self._read_data(runner)
            computed = getattr(runner, "computed", None) or self.computed
            checkpoint[MADE_OF] = dict(computed=computed, data=self._data[0])

    def _read_data(self, runner: Runner) -> None:
        if not self._data:
            main = is_main_process()
            self._data = [dataset_hash(runner.train_dataloader.dataset) if main else None]
