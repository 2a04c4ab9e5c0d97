"""Whether two runs are the same, bit for bit, but for what VOLATILE names.

``differences`` compares work folders, ``row_differences`` lines of results. Both give one text for
each thing that differs, so that a campaign may print them.
"""

from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mmkd_logit.checkpoint import load_from_file
from mmkd_logit.engine.fingerprint import log_folders, read_run
from mmkd_logit.engine.resume import last_checkpoint
from mmkd_logit.engine.save import VOLATILE
from mmkd_logit.lab.report.data import read_scalars


def assert_same_runs(first, second):
    found = differences(first, second)
    assert not found, "\n".join(found[:20])


def differences(first, second):
    """Compare what two finished runs left in their work folders.

    These are ``final.pth``, of which each byte counts, the names of all checkpoints and the
    content of the last one (weights, optimizer, averages, schedules, logged values, random states,
    hooks), what ``run.json`` says of its content and the merged log curves.
    """
    folders = [Path(first), Path(second)]
    found = []
    names, finals, runs = zip(*map(_files, folders), strict=True)
    if names[0] != names[1]:
        found.append(f"checkpoints: {names[0]} != {names[1]}")
    if finals[0] != finals[1]:
        found.append("final.pth")
        if None not in finals:
            contents = [load_from_file(str(folder / "final.pth")) for folder in folders]
            found += value_differences(*contents, "final.pth")
    if runs[0] != runs[1]:
        found.append("run.json")
    lasts = [last_checkpoint(folder) for folder in folders]
    if None in lasts:
        found += ["no last checkpoint"] * (lasts[0] != lasts[1])
    else:
        contents = [load_from_file(str(path)) for path in lasts]
        found += value_differences(*contents, lasts[0].name)
    return found + value_differences(*map(curves, folders), "curves")


def _files(folder):
    final = folder / "final.pth"
    of_files = {"logs", "checkpoints"}
    return (
        sorted(path.name for path in folder.glob("*.pth*")),
        final.read_bytes() if final.is_file() else None,
        {key: value for key, value in read_run(folder).items() if key not in of_files},
    )


def curves(folder):
    """The log curves of a run, of all its parts: by name steps and values."""
    files = {path.parts[-3]: path for path in Path(folder).glob("*/vis_data/scalars.json")}
    files = [files[name] for name in log_folders(folder, files)]
    assert files, folder
    return {name: value for name, value in read_scalars(files).items() if name not in VOLATILE}


def row_differences(first, second):
    """Compare two lines of results."""
    return value_differences(first, second, "row")


def value_differences(first, second, name=""):
    """Compare containers, tensors, histories and numbers; NaN equals NaN."""
    if type(first) is not type(second):
        return [f"{name}: {type(first).__name__} != {type(second).__name__}"]
    if isinstance(first, dict):
        found = []
        for key in [*first, *(key for key in second if key not in first)]:
            # Scalars of a message hub are named train/time, those of a group train/s0/time.
            if str(key).rpartition("/")[2] in VOLATILE:
                continue
            if key not in first or key not in second:
                found.append(f"{name}.{key}: in one only")
            else:
                found += value_differences(first[key], second[key], f"{name}.{key}")
        return found
    if isinstance(first, (list, tuple)):
        if len(first) != len(second):
            return [f"{name}: {len(first)} != {len(second)} items"]
        pairs = enumerate(zip(first, second, strict=True))
        return [text for i, pair in pairs for text in value_differences(*pair, f"{name}.{i}")]
    if isinstance(first, HistoryBuffer):
        return value_differences(first.data, second.data, name)
    if isinstance(first, torch.Tensor):
        same = first.dtype == second.dtype and torch.equal(_bits(first), _bits(second))
        return [] if same else [f"{name}: tensors differ"]
    if isinstance(first, np.ndarray):
        same = first.dtype == second.dtype and np.array_equal(first, second, equal_nan=True)
        return [] if same else [f"{name}: {first!r} != {second!r}"]
    same = first == second or (first != first and second != second)
    return [] if same else [f"{name}: {first!r} != {second!r}"]


def _bits(value):
    return value.contiguous().reshape(-1).view(torch.uint8) if value.numel() else value
