"""Checkpoints that a kill leaves whole."""

import hashlib
import os
import pickle
from collections import deque
from typing import Any

from mmengine.dist import is_main_process, master_only
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmkd_logit.registry import HOOKS

from ._atomic_backend import ATOMIC
from ._checkpoint_arguments import check_checkpoint_arguments
from ._saving import INTERRUPTED, point_to, save_atomically


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, whose files are whole at whatever moment the run ends.

    MMEngine removes the oldest checkpoint, writes the new one in place and then the name of the
    last one, in place too: a run that is killed in between may have none. Here the new one appears
    whole or not at all, then the name, and the old ones go last, also the best ones. The checkpoint
    before is there until then, so the disk holds one more for a while.

    Every file has a checksum in it, and ``run.json`` in the work folder lists the run's
    checkpoints: where the last one is damaged, ``tools/train.py --resume`` takes the one before.

    Args:
        **kwargs: As of MMEngine's hook. With a ``backend_args`` of their own, files are as whole as
            that backend makes them.

    Raises:
        ValueError: If an argument is of another kind.
    """

    changes_training = False

    backend_args: dict | None
    file_backend: Any
    keep_ckpt_ids: deque

    def __init__(self, **kwargs: Any) -> None:
        check_checkpoint_arguments(kwargs)
        super().__init__(**kwargs)
        self._waiting: list[str] = []
        self.saved_after: int | None = None  # iterations, within an epoch

    def before_train(self, runner: Runner) -> None:
        """Prepare; what a killed run had still to remove is removed."""
        super().before_train(runner)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(self.keep_ckpt_ids)  # not bounded: removing comes later
        self.file_backend = _RemovingLater(self.file_backend, self._waiting)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        # When MMEngine saves the last one again for a better validation, the best one is whole and
        # will be made again should this one not be: afterwards nobody would know the one before.
        self._remove_waiting()
        many = self._keep(runner, step)
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        save_atomically(
            runner,
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
        gone = [*many, self.file_backend.join_path(self.out_dir, INTERRUPTED)]
        point_to(runner, self.last_ckpt, gone)
        self.saved_after = None if self.by_epoch else runner.iter + 1
        for _ in many:
            self.keep_ckpt_ids.popleft()
        self._waiting += gone
        self._remove_waiting()

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
        names = [self.filename_tmpl.format(each) for each in many]
        return [self.file_backend.join_path(self.out_dir, name) for name in names]

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        given = self.backend_args
        if self.file_client_args is None and given is None and "://" not in str(self.out_dir):
            self.backend_args = dict(backend=ATOMIC)
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.backend_args = given
        self._remove_waiting()

    def _remove_waiting(self) -> None:
        if not is_main_process():
            return
        # Where a validation is done again, the best one may get the name that it had.
        best = [getattr(self, "best_ckpt_path", None)]
        best += getattr(self, "best_ckpt_path_dict", {}).values()
        self.file_backend.remove_now(but={str(path) for path in (*best, self.last_ckpt)})

    @master_only
    def _publish_model(self, runner: Runner, ckpt_path: str) -> None:
        from mmengine.runner import save_checkpoint
        from mmengine.runner.checkpoint import _load_checkpoint

        checkpoint = _load_checkpoint(ckpt_path)
        kept = {key: checkpoint[key] for key in checkpoint if key in (self.published_keys or ())}
        sha = hashlib.sha256(pickle.dumps(kept)).hexdigest()
        path = f"{os.path.splitext(ckpt_path)[0]}-{sha[:8]}.pth"
        save_checkpoint(kept, path, backend_args=self.backend_args or dict(backend=ATOMIC))
        runner.logger.info(f"The checkpoint ({ckpt_path}) is published to {path}.")


class _RemovingLater:
    """A file backend that removes files only when asked to a second time.

    Args:
        backend: That does it.
        waiting: Gets the paths.
    """

    def __init__(self, backend: Any, waiting: list[str]) -> None:
        self._backend, self._waiting = backend, waiting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._waiting.append(str(path))

    rmtree = remove

    def remove_now(self, but: set[str]) -> None:
        """Remove them.

        Args:
            but: Those that stay.
        """
        while self._waiting:
            path = self._waiting.pop(0)
            if path in but:
                continue
            if self._backend.isfile(path):
                self._backend.remove(path)
            elif self._backend.isdir(path):  # of deepspeed
                self._backend.rmtree(path)
