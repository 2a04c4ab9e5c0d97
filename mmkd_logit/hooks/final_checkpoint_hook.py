"""The one file that a finished run leaves to others."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_logit._checks import check_text
from mmkd_logit._sealed_files import why_damaged
from mmkd_logit._volatile import VOLATILE
from mmkd_logit.registry import HOOKS

from ._saving import save_atomically


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

    def __init__(self, filename: str = "final.pth") -> None:
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
        if is_main_process() and runner.iter < runner.max_iters:
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
            from mmkd_logit.models._feature_adapters import without_adapters

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
