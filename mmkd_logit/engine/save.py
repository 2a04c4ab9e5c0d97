"""Saving checkpoints that are there whole or not at all."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import check_text
from mmkd_logit.utils.files import replacing, sealed, why_damaged, write_text

from .config import FINAL
from .fingerprint import read_run, write_run

# Fields, wherever they stand: in checkpoints, scalars and rows of results. Everything else of a
# run that was cut off and resumed equals that of one that was not, bit for bit.
VOLATILE = frozenset(
    {
        # times: of iterations and lines of log, of a run since it was begun or resumed
        *("time", "data_time", "eta", "timestamp", "finished", "train_seconds", "resumed_at"),
        # memory
        "memory",
        # hosts
        *("device", "launcher"),
        # paths, and words that hold some: names of experiments end with their time
        *("work_dir", "experiment_name", "load_from", "resume", "command", "cfg"),
        *("last_ckpt", "best_ckpt"),
    }
)


ATOMIC = "mmkd_logit.atomic"


class AtomicBackend(LocalBackend):
    """MMEngine's local files, which appear whole or not at all.

    Checkpoints get a checksum, by which a later run sees whether they are whole. It is registered
    as ``mmkd_logit.atomic``, for ``backend_args=dict(backend='mmkd_logit.atomic')``.
    """

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write a file."""
        with replacing(filepath, len(obj)) as file:
            file.writelines(sealed(obj))


register_backend(ATOMIC, AtomicBackend, force=True)


POINTER = "last_checkpoint"  # as MMEngine calls it
INTERRUPTED = "interrupted.pth"  # of a run that was asked to stop, until its next checkpoint


def save_atomically(runner: Runner, folder: str, filename: str, **kwargs: Any) -> None:
    """Save a checkpoint that appears whole or not at all."""
    if kwargs.get("backend_args") is None and "://" not in str(folder):
        kwargs["backend_args"] = dict(backend=ATOMIC)
    runner.save_checkpoint(folder, filename, **kwargs)


def record_checkpoint(runner: Runner, checkpoint: str, gone: Sequence[str] = ()) -> None:
    """Make a saved checkpoint the one that the run is resumed from."""
    if is_main_process():
        known = read_run(runner.work_dir).get("checkpoints", [])
        others = [each for each in known if each != checkpoint and each not in gone]
        write_run(runner.work_dir, checkpoints=[*others, checkpoint])
        write_text(Path(runner.work_dir, POINTER), checkpoint)  # for MMEngine's own tools


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, whose files are whole at whatever moment the run ends.

    MMEngine removes the oldest checkpoint, writes the new one in place and then the name of the
    last one, in place too: a run that is killed in between may have none. Here the new one appears
    whole or not at all, then the name, and the old ones go last, also the best ones. The checkpoint
    before is there until then, so the disk holds one more for a while.

    ``run.json`` in the work folder lists the run's checkpoints: where the last one does not fit the
    checksums in it, ``tools/train.py --resume`` takes the one before.
    The best checkpoint that a resumed one names is looked for where the run writes its own: the
    folder may have been moved since, and MMEngine would delete a file elsewhere.

    Args:
        **kwargs: As of MMEngine's hook. With a ``backend_args`` of their own, files are as whole as
            that backend makes them.
    """

    changes_training = False

    backend_args: dict | None
    file_backend: Any
    keep_ckpt_ids: deque

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._outdated: list[str] = []

    def before_train(self, runner: Runner) -> None:
        """Prepare; what a killed run had still to remove is removed."""
        local = "://" not in str(self.out_dir or runner.work_dir)
        if self.backend_args is None and self.file_client_args is None and local:
            self.backend_args = dict(backend=ATOMIC)
        super().before_train(runner)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(self.keep_ckpt_ids)  # not bounded: removing comes later
        self.file_backend = _RemoveLater(self.file_backend, self._outdated)
        info = runner.message_hub.runtime_info
        if runner.iter and info.get("last_ckpt"):
            # Without it a better validation would not have the checkpoint before it rewritten.
            self.last_ckpt = self._own(info["last_ckpt"])
        for key in [key for key in info if key.startswith("best_ckpt") and info[key]]:
            runner.message_hub.update_info(key, self._own(info[key]))
        if self.save_best is not None and len(self.key_indicators) == 1:
            self.best_ckpt_path = info.get("best_ckpt")
        elif self.save_best is not None:
            self.best_ckpt_path_dict = {k: info.get(f"best_ckpt_{k}") for k in self.key_indicators}

    def _own(self, path: str) -> str:
        return self.file_backend.join_path(self.out_dir, Path(path).name)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        # MMEngine saves the last one again after a better validation. By then the best one is
        # whole, and the one before it must go: from here on no checkpoint names it.
        self._remove_outdated()
        many = self._keep(runner, step)
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self._own(filename)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            filename,
            file_client_args=self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        gone = [*many, self._own(INTERRUPTED)]
        record_checkpoint(runner, self.last_ckpt, gone)
        for _ in many:
            self.keep_ckpt_ids.popleft()
        self._outdated += gone
        self._remove_outdated()

    def _keep(self, runner: Runner, step: int) -> list[str]:
        """Note a new checkpoint; return the paths of those that it makes too many.

        The numbers of these are saved with it. Should the run be killed before they are removed,
        ``before_train`` of the next one does so.
        """
        if self.max_keep_ckpts <= 0:
            return []
        if not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step:
            self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
        many = list(self.keep_ckpt_ids)[: -self.max_keep_ckpts]
        return [self._own(self.filename_tmpl.format(each)) for each in many]

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        super()._save_best_checkpoint(runner, metrics)
        self._remove_outdated()

    def _remove_outdated(self) -> None:
        # Where a validation is done again, the best one may get the name that it had.
        best = [getattr(self, "best_ckpt_path", None), self.last_ckpt]
        best += getattr(self, "best_ckpt_path_dict", {}).values()
        for path in self._outdated:
            if is_main_process() and path not in best and self.file_backend.isfile(path):
                self.file_backend.remove_now(path)
        self._outdated.clear()


class _RemoveLater:
    """A file backend that only notes the files to remove."""

    def __init__(self, backend: Any, outdated: list[str]) -> None:
        self._backend = backend
        self.remove_now = backend.remove
        self.remove = outdated.append

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


@HOOKS.register_module()
class OwnBestCheckpointHook(Hook):
    """Do nothing: dumped configs name this hook, whose work AtomicCheckpointHook does."""

    changes_training = False


@HOOKS.register_module()
class FinalCheckpointHook(Hook):
    """Write ``final.pth``, the weights after the last iteration, once training has ended.

    It exists only when training ran to its end, and it appears whole or not at all, so another
    run may take it for a teacher. Without the optimizer it is a third to a half of
    ``epoch_N.pth``. With ``EMAHook`` its ``state_dict`` holds the averaged weights, as in
    MMEngine's own checkpoints. What a distiller trained beside the student, its
    ``feature_adapters``, is left out: the file is the student's. So are times, paths and what was
    logged: runs of the same bits leave the same bytes, cut off and resumed or not.

    Args:
        filename: Name of the file in the work folder.

    Raises:
        ValueError: If ``filename`` is no such name.
    """

    changes_training = False
    priority = "VERY_LOW"

    def __init__(self, filename: str = FINAL) -> None:
        check_text("filename", filename, "the name of a file, such as 'final.pth'")
        if Path(filename).name != filename:
            raise ValueError(
                "filename must name no folder, as the file lies in the work folder, got "
                f"{filename!r}"
            )
        self.filename = filename
        self._writing = False
        self._trained = True

    def before_train(self, runner: Runner) -> None:
        """Remove the file of an earlier run in this folder, which this run replaces."""
        self._trained = runner.iter < runner.max_iters
        if is_main_process() and self._trained:
            Path(runner.work_dir, self.filename).unlink(missing_ok=True)

    def after_train(self, runner: Runner) -> None:
        """Write the file, unless it is there, whole, and nothing was trained since."""
        final = Path(runner.work_dir, self.filename)
        there = [not self._trained and final.is_file() and why_damaged(final, True) is None]
        broadcast_object_list(there)  # another process may look while the first one writes
        if there[0]:
            return
        self._writing = True
        save_atomically(
            runner,
            runner.work_dir,
            self.filename,
            save_optimizer=False,
            save_param_scheduler=False,
            meta=dict(epoch=runner.epoch, iter=runner.iter),
        )
        self._writing = False
        barrier()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take what is not the student's out of our file; ``epoch_N.pth`` keeps it."""
        if self._writing:
            checkpoint.pop("message_hub", None)
            checkpoint["meta"] = _lasting(checkpoint["meta"], runner)
            # Not above: command lines read the hooks before they silence mmpretrain's warnings.
            from mmkd_logit.models.feature_kd import without_adapters

            for name in ("state_dict", "ema_state_dict"):  # after EMAHook, which has priority
                if name in checkpoint:
                    checkpoint[name] = without_adapters(checkpoint[name])


def _lasting(meta: dict[str, Any], runner: Runner) -> dict[str, Any]:
    """Return what is not volatile of a checkpoint's ``meta``, and of the config in it."""
    cfg = {key: value for key, value in runner.cfg.to_dict().items() if key not in VOLATILE}
    # Where none is given, a resumed run has that of its checkpoint.
    cfg["randomness"] = dict(cfg.get("randomness") or {}, seed=runner.seed)
    kept = {key: value for key, value in meta.items() if key not in VOLATILE}
    return dict(kept, cfg=Config(cfg).pretty_text)
