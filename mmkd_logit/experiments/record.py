"""An exhibit as one JSON file: tables, runs, and where the files of each run lie."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmkd_logit._atomic_files import write_text
from mmkd_logit._run_file import log_folders
from mmkd_logit.engine.dump_files import find_dumps
from mmkd_logit.engine.method import describe_method
from mmkd_logit.engine.results import plain

from .exhibit import Exhibit
from .pools import LOG
from .run import Run
from .table import Cell, collect, compare, describe_protocol, used_marks

FORMAT = 1


def describe_exhibit(
    exhibit: Exhibit,
    found: Mapping[Run, dict | None],
    configs: Mapping[str, Config],
    command: Sequence[str],
    folder: str | Path,
) -> dict[str, Any]:
    """Say everything that is known of an exhibit, for those who draw and report.

    Args:
        exhibit: The exhibit.
        found: For each run, teachers included, its results row, or None if it failed.
        configs: The complete config of each run, by its work folder.
        command: The command line that made it.
        folder: Where the file will lie; paths in it are seen from the current folder, which
            ``root`` leads to.

    Returns:
        What JSON can hold; numbers that are not finite are as Python writes them.

    Raises:
        ValueError: If a row lacks a metric.
    """
    return dict(
        format=FORMAT,
        name=exhibit.name,
        scale=exhibit.scale,
        title=exhibit.title,
        note=exhibit.note,
        protocol=describe_protocol(exhibit, found),
        legend=used_marks(exhibit),
        command=list(command),
        root=os.path.relpath(Path.cwd(), Path(folder).resolve()),
        cells={name: list(place) for name, place in exhibit.cells.items()},
        metrics=[_metric(exhibit, found, metric) for metric in exhibit.metrics],
        runs=[_run(run, row, configs[run.work_dir]) for run, row in found.items()],
    )


def _metric(exhibit: Exhibit, found: Mapping[Run, dict | None], metric: dict) -> dict[str, Any]:
    cells = collect(exhibit, found, metric)
    pairs = exhibit.comparisons
    texts = [dict(first=a, second=b, text=compare(exhibit, cells, a, b)) for a, b in pairs]
    return dict(
        title=metric["title"],
        key=metric["key"],
        cells={name: _cell(cell) for name, cell in cells.items()},
        comparisons=texts,
    )


def _cell(cell: Cell) -> dict[str, Any]:
    return dict(
        by_seed={str(seed): value for seed, value in sorted(cell.by_seed.items())},
        mean=cell.mean,
        std=cell.std,
        n=len(cell.by_seed),
        failed=cell.failed,
        paper=cell.paper,
        mark=cell.mark,
        difference=cell.gap,
    )


def _run(run: Run, row: dict | None, cfg: Config) -> dict[str, Any]:
    return dict(
        name=run.name,
        seed=run.cell_seed,
        work_dir=run.work_dir,
        config=run.config,
        overrides=list(run.overrides),
        epochs=row["epochs"] if row else run.epochs,
        teachers=[teacher.work_dir for teacher in run.teachers],
        method=plain(describe_method(cfg)),
        command=["python", "tools/train.py", *run.arguments()],
        row=row,
        files=find_files(run.work_dir, row),
    )


def find_files(work_dir: str | Path, row: dict | None) -> dict[str, Any]:
    """Find what a run has left to read.

    Args:
        work_dir: Its folder.
        row: Its results row, which names the folder of the log of runs trained together, or
            None.

    Returns:
        ``log``, the path of what it printed, or None; ``scalars``, those of MMEngine's
        ``scalars.json`` that are of the run, in the order in which it was begun and resumed;
        ``dumps``, those of ``logits/{split}.npz`` by split, made with the weights of the row.
    """
    logs = [Path(work_dir, LOG)]
    if row and row.get("together", 1) > 1:
        lists = [word for word in row.get("command", ()) if word.endswith("runs.txt")]
        logs = [*(Path(name).with_name(LOG) for name in lists), *logs]
    scalars = {path.parts[-3]: path for path in Path(work_dir).glob("*/vis_data/scalars.json")}
    return dict(
        log=next((str(log) for log in logs if log.is_file()), None),
        scalars=[str(scalars[log]) for log in log_folders(work_dir, list(scalars))],
        dumps=find_dumps(work_dir, (row or {}).get("weights")),
    )


def write_record(path: str | Path, record: Mapping[str, Any]) -> None:
    """Write the file whole or not at all.

    Args:
        path: The file; its folder exists.
        record: Of :func:`describe_exhibit`.

    Raises:
        OSError: If it cannot be written; an earlier file is then as before.
    """
    write_text(path, json.dumps(record, indent=1) + "\n")
