"""Hooks that send signals, for configs with ``custom_imports=dict(imports=['stop_hooks'])``."""

import multiprocessing
import os
import signal

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module(force=True)
class SignalAt(Hook):
    """Sends a signal to a process of the run, and to its workers, during an iteration.

    Args:
        iteration: From 1 on; a run that is resumed after it sends none.
        name: Of the signal.
        rank: Of the process.
    """

    def __init__(self, iteration, name, rank=0):
        self.iteration, self.number, self.rank = iteration, getattr(signal, name), rank

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration and int(os.environ.get("RANK", 0)) == self.rank:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, self.number)
            os.kill(os.getpid(), self.number)
