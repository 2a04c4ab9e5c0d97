"""A progress bar on a terminal."""

import logging
import sys
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tqdm import tqdm
from tqdm.contrib import DummyTqdmFile

from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import check_flag


@HOOKS.register_module()
class ProgressBarHook(Hook):
    """Show the iterations done, their speed and the time left, and the last logged loss.

    It is drawn on a terminal (or with ``always=True``) by the main process, below MMEngine's log
    lines.

    Args:
        always: Draw also where standard error is no terminal.

    Raises:
        ValueError: If ``always`` is neither True nor False.
    """

    changes_training = False
    priority = "VERY_LOW"

    def __init__(self, always: bool = False) -> None:
        self.always = check_flag("always", always)
        self._bar: tqdm | None = None
        self._streams: list[tuple[logging.StreamHandler, Any]] = []

    def before_train(self, runner: Runner) -> None:
        """Draw the bar and move the log lines above it."""
        if not is_main_process() or not (self.always or sys.stderr.isatty()):
            return
        self._bar = tqdm(
            total=runner.max_iters,
            initial=runner.iter,
            unit="it",
            desc=runner.experiment_name.rsplit("_", 2)[0],
            dynamic_ncols=True,
            file=sys.stderr,
        )
        for handler in runner.logger.handlers:
            if type(handler) is logging.StreamHandler and handler.stream.isatty():
                self._streams.append((handler, handler.stream))
                handler.setStream(DummyTqdmFile(sys.stderr))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Move the bar on."""
        if self._bar is not None:
            self._bar.update()

    def after_train_epoch(self, runner: Runner) -> None:
        """Write the epoch and its last loss beside the bar."""
        if self._bar is not None:
            text = f"epoch {runner.epoch + 1}/{runner.max_epochs}"
            loss = runner.message_hub.log_scalars.get("train/loss")
            if loss is not None:
                text += f", loss {float(loss.current()):.4g}"
            self._bar.set_postfix_str(text)

    def after_train(self, runner: Runner) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        for handler, stream in self._streams:
            handler.setStream(stream)
        self._streams.clear()
