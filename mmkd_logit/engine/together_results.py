"""What runs that were trained together leave, each in its folder."""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dist import barrier, broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import CheckpointLoader, EpochBasedTrainLoop, Runner

from mmkd_logit._atomic_files import write_text
from mmkd_logit._run_file import log_folders, note_logs
from mmkd_logit._sealed_files import why_damaged
from mmkd_logit.hooks import FinalCheckpointHook
from mmkd_logit.hooks._saving import POINTER, point_to, save_atomically

from .dump_run import dump_run
from .errors import TrainingStarted
from .figures_hook import OF_DUMPS, show_figures
from .fingerprint import computed_content
from .provenance import is_origin, origin_of, write_origin
from .results import ResultsRecorder, find_row, read_lines
from .teachers import FINAL


class Member(NamedTuple):
    """One of the runs.

    Attributes:
        args: Its parsed command line.
        cfg: Its complete config, as for a run of its own.
    """

    args: argparse.Namespace
    cfg: Config


class MarkMembersHook(Hook):
    """Say in the runs' folders whose weights will come, and remove those of others.

    Args:
        cfgs: Of the runs.
    """

    priority = "VERY_HIGH"

    def __init__(self, cfgs: Sequence[Config]) -> None:
        self.origins = [(cfg, origin_of(cfg)) for cfg in cfgs]

    def before_train(self, runner: Runner) -> None:
        """Do so, now that everything is built."""
        if not is_main_process():
            return
        for cfg, origin in self.origins:
            folder = Path(cfg.work_dir)
            folder.mkdir(parents=True, exist_ok=True)
            if runner.iter < runner.max_iters or not is_origin(cfg):
                for name in (POINTER, FINAL):
                    (folder / name).unlink(missing_ok=True)
            write_origin(folder, origin)


def finish(
    runner: Runner,
    name: str,
    member: Member,
    recorder: ResultsRecorder,
    started: TrainingStarted,
    common: str,
) -> None:
    """Leave in a run's folder what others take from it, and record it.

    Args:
        runner: Of the group, as that of the run (:func:`as_member`).
        name: The student's.
        member: The run.
        recorder: Its own.
        started: Knows the first iteration.
        common: The folder of the group.
    """
    final = Path(runner.work_dir, FINAL)
    # One process looks at the files for all, since it writes some of them meanwhile.
    if _agree(started.iteration is not None or not _is_whole(final)):
        if is_main_process():
            split_scalars(common, runner.work_dir, name)
        _save_last(runner)
        _write_final(runner)  # where it is there, a run that was killed had done the rest
    elif _agree(_is_recorded(runner, member, recorder)):
        if dump_run(runner, member.args, recorder.origin, recorder.machine):
            show_figures(runner, OF_DUMPS, f"{name}-")
        return
    else:
        state = CheckpointLoader.load_checkpoint(str(final), map_location="cpu")["state_dict"]
        runner.model.load_state_dict(state)
    barrier()
    recorder.record(
        runner, member.args, started, prefix=f"{name}/", together=len(_students(runner))
    )
    dump_run(runner, member.args, recorder.origin, recorder.machine)
    show_figures(runner, prefix=f"{name}-")


def _write_final(runner: Runner) -> None:
    hook = FinalCheckpointHook()
    runner.register_hook(hook)  # it has a say in what is saved
    try:
        hook.after_train(runner)
    finally:
        runner.hooks.remove(hook)


def _agree(value: bool) -> bool:
    values = [value]
    broadcast_object_list(values)
    return values[0]


def _is_whole(final: Path) -> bool:
    return final.is_file() and why_damaged(final, only_zip=True) is None


def _is_recorded(runner: Runner, member: Member, recorder: ResultsRecorder) -> bool:
    if recorder.path is None:
        return True
    measured = ["train"] * member.args.train_metrics
    rows = read_lines(recorder.path)
    return find_row(member.cfg, rows, runner.world_size, measured) is not None


def _save_last(runner: Runner) -> None:
    """Write the checkpoint from which the run alone can be measured again."""
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    filename = f"epoch_{runner.epoch}.pth" if by_epoch else f"iter_{runner.iter}.pth"
    meta = dict(epoch=runner.epoch, iter=runner.iter)
    # Of the end, whether it was trained or resumed there; and other checkpoints are the group's.
    runner.message_hub.update_info_dict(dict(meta, keep_ckpt_ids=[]))
    save_atomically(runner, runner.work_dir, filename, meta=meta)
    point_to(runner, str(Path(runner.work_dir, filename)))


def split_scalars(common: str | Path, work_dir: str | Path, name: str) -> None:
    """Write what MMEngine logged of one student of a group as of a run of its own.

    Args:
        common: The folder of the group, with ``TIMESTAMP/vis_data/scalars.json``.
        work_dir: The run's folder, which gets the same files.
        name: The student's.
    """
    sources = {path.parts[-3]: path for path in Path(common).glob("*/vis_data/scalars.json")}
    logs = log_folders(common, list(sources))
    for log in logs:
        lines = []
        for line in sources[log].read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue  # its process was killed
            row = json.loads(line)
            own = {
                key.removeprefix(f"{name}/").removeprefix(f"{name}."): value
                for key, value in row.items()
                if re.match(rf"{name}[/.]", key) or not re.match(r"s\d+[/.]", key)
            }
            if len(own) > len(row.keys() & own.keys()):  # else the line is of nobody's values
                lines.append(json.dumps(own))
        target = Path(work_dir, *sources[log].parts[-3:])
        write_text(target, "".join(f"{line}\n" for line in lines))
    note_logs(work_dir, logs)


_GROUP = "_mmkd_logit_group"


def _students(runner: Runner) -> Any:
    model = getattr(runner, _GROUP, runner.model)
    return (model.module if is_model_wrapper(model) else model).students


@contextmanager
def as_member(runner: Runner, name: str, cfg: Config) -> Iterator[None]:
    """Let a trained Runner be that of one of the runs.

    Args:
        runner: Of the group.
        name: The student's.
        cfg: The run's.
    """
    fields = ("model", "cfg", "_work_dir", "optim_wrapper", "param_schedulers", "computed")
    before = {field: getattr(runner, field) for field in fields}
    setattr(runner, _GROUP, runner.model)
    schedules = (runner.param_schedulers or {}).get(name)
    own = (
        *(_students(runner)[name], cfg, cfg.work_dir, runner.optim_wrapper[name], schedules),
        computed_content(cfg),
    )
    vars(runner).update(zip(fields, own, strict=True))
    try:
        yield
    finally:
        delattr(runner, _GROUP)
        vars(runner).update(before)
