"""Figures of a run, among its logged scalars."""

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend

from mmkd_logit._checks import check_flag
from mmkd_logit.registry import HOOKS

from .dump_files import find_dumps
from .fingerprint import teacher_hashes, weights_hash
from .method import describe_method
from .results import plain
from .teachers import FINAL

# Modules figure_NAME of mmkd_logit.analysis, by what they are drawn from.
OF_SCALARS = ("learning_curves", "class_sums")
OF_DUMPS = ("logit_sums", "distances", "templates", "calibration")


@HOOKS.register_module()
class FiguresHook(Hook):
    """Draw a run when it ends, and hand the pictures to TensorBoard or another ``vis_backend``.

    Learning curves and the class-sum of the last layer come from the run's ``scalars.json``, which
    MMEngine's ``LocalVisBackend`` writes; with ``--dump-logits`` the figures of logits follow
    once these are written. The pictures are those of ``tools/report.py``, of one run.

    It does nothing where ``LocalVisBackend`` is the only backend: the report draws the same files
    at any time, for many runs at once, while here every run would pay seconds of drawing and
    leave megabytes of PNG that nobody asked for. Whoever adds another backend has asked. A figure
    that cannot be drawn is a warning in the log.

    It belongs to the engine, since it names runs as results rows do. ``tools/train_together.py``
    shows each run's pictures under the name of its student.

    Args:
        always: Draw also for ``LocalVisBackend`` alone, into ``vis_data/vis_image``.

    Raises:
        ValueError: If ``always`` is neither True nor False.
    """

    changes_training = False
    priority = "LOWEST"  # after the last scalars and final.pth

    def __init__(self, always: bool = False) -> None:
        self.always = check_flag("always", always)

    def after_train(self, runner: Runner) -> None:
        """Draw what there is by now."""
        # Not above: command lines read the hooks before they silence mmpretrain's warnings.
        from mmkd_logit.models import StudentGroup

        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, StudentGroup):  # whose members' files are not written yet
            self.show(runner)

    def show(
        self, runner: Runner, parts: Sequence[str] = (*OF_SCALARS, *OF_DUMPS), prefix: str = ""
    ) -> None:
        """Draw and hand over.

        Args:
            runner: After training.
            parts: Of :data:`OF_SCALARS` and :data:`OF_DUMPS`; those whose files are missing are
                left out.
            prefix: What the pictures' names begin with.
        """
        if not is_main_process() or not (self.always or _is_wanted(runner.visualizer)):
            return
        try:
            exhibit = exhibit_of(runner)
            files = exhibit.record["runs"][0]["files"]
        except Exception as error:  # a picture is no reason to lose a run
            return _warn(runner, "The run's figures cannot be drawn", error)
        for part in parts:
            if files["scalars" if part in OF_SCALARS else "dumps"]:
                try:
                    _show(runner, part, exhibit, prefix)
                except Exception as error:
                    _warn(runner, f"Its figure of {part.replace('_', ' ')} cannot be drawn", error)


def show_figures(
    runner: Runner, parts: Sequence[str] = (*OF_SCALARS, *OF_DUMPS), prefix: str = ""
) -> None:
    """Let the hook of a run, if it has one, draw after the end of training.

    Args:
        runner: After training.
        parts: As of :meth:`FiguresHook.show`.
        prefix: As of :meth:`FiguresHook.show`.
    """
    for hook in runner.hooks:
        if isinstance(hook, FiguresHook):
            hook.show(runner, parts, prefix)
            runner.visualizer.close()  # as MMEngine does after training; what is held is written


def _is_wanted(visualizer: Any) -> bool:
    backends = getattr(visualizer, "_vis_backends", {}).values()
    return any(not isinstance(backend, LocalVisBackend) for backend in backends)


def _show(runner: Runner, part: str, exhibit: Any, prefix: str) -> None:
    from mmkd_logit.analysis.style import style  # matplotlib takes its time

    with style():
        module = importlib.import_module(f"mmkd_logit.analysis.figure_{part}")
        for number, drawing in enumerate(module.draw(exhibit), 1):
            # The same for every run: TensorBoard shows those of one name beside each other.
            name = f"{prefix}figure_{part}" + f"_{number}" * (number > 1)
            runner.visualizer.add_image(name, drawing.pixels(), step=runner.iter)


def _warn(runner: Runner, what: str, error: Exception) -> None:
    text = " ".join(str(error).split())
    runner.logger.warning(f"{what}: {type(error).__name__}: {text}")


def exhibit_of(runner: Runner) -> Any:
    """Return the ``ExhibitFile`` of a run of its own, which is in no file.

    Args:
        runner: After training.
    """
    from mmkd_logit.analysis._report_read import FORMAT, ExhibitFile

    cfg, folder = runner.cfg, Path(runner.work_dir)
    name = folder.parent.name if re.fullmatch(r"seed\d+", folder.name) else folder.name
    weights = weights_hash(folder / FINAL)
    row = dict(
        seed=runner.seed,
        epochs=runner.epoch,
        iterations=runner.iter,
        weights=weights,
        teachers=teacher_hashes(cfg),
        test={},
        train=None,
    )
    run = dict(
        name=name,
        seed=runner.seed,
        work_dir=str(folder),
        config=getattr(cfg, "filename", None),
        overrides=[],
        epochs=runner.epoch,
        teachers=[],
        method=plain(describe_method(cfg)),
        command=["python", "tools/train.py", str(getattr(cfg, "filename", None) or "CONFIG")],
        row=row,
        files=dict(
            log=None,
            scalars=[str(path) for path in sorted(folder.glob("*/vis_data/scalars.json"))],
            dumps=find_dumps(folder, weights) if weights else {},
        ),
    )
    record = dict(
        format=FORMAT,
        name="run",
        scale=None,
        title=name,
        note="",
        protocol="",
        legend={},
        command=run["command"],
        root=".",
        cells={name: [name, ""]},
        metrics=[],
        runs=[run],
        outside=True,  # of any table: nothing to compare with
    )
    return ExhibitFile(folder, Path(), record)
