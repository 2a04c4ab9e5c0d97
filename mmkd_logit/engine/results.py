"""One JSON line for each finished run."""

import argparse
import copy
import fcntl
import json
import math
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner, TestLoop

from mmkd_logit.hooks.label_noise import train_metainfo
from mmkd_logit.hooks.networks import averaged_networks, unwrapped
from mmkd_logit.losses.base import describe_loss
from mmkd_logit.utils.arguments import check_out_file, type_name
from mmkd_logit.utils.cli import program
from mmkd_logit.utils.files import explained

from .cli import TrainingStarted
from .config import FINAL, describe_numerics, later_teachers, teachers_of
from .fingerprint import (
    dataset_hash,
    describe_machine,
    describe_run,
    describe_test,
    fingerprint,
    fingerprint_of,
    row_fingerprint,
    same_test,
    weights_hash,
)

_SEQUENTIAL = "SequentialTeacherHook"
# What tells networks of one type apart; the rest follows from these or from the data.
_NETWORK = ("depth", "widen_factor", "base_channels", "strides", "arch", "model_name")


def describe_method(cfg: Config) -> dict[str, Any]:
    """Say by what a run is trained."""
    model = cfg.model
    distils = type_name(model) == "LogitDistiller"
    loss = (model.get("loss_kd") or {}) if distils else {}
    weights = model.get("weights") or dict(kd=model.get("alpha", 1.0))
    alpha = float(weights["kd"]) if distils else None
    features = list(model.get("feature_kd") or ()) if distils else []
    if features and not alpha:
        loss = features[0].get("loss") or {}
    several = features or any(type_name(h) == _SEQUENTIAL for h in cfg.get("custom_hooks") or [])
    said = describe_loss(loss) if alpha and not several else {}
    kind = "other" if several else said["label"].lower() if said else "ce"
    if said and kind in ("ce", "other"):  # which a loss of somebody else may be called
        kind += " loss"
    given = dict(weights=dict(model.weights)) if distils and model.get("weights") else {}
    return dict(
        **said,
        **given,
        kind=kind,
        tau=_number(loss.get("tau")) if isinstance(loss, Mapping) else None,
        alpha=alpha,
        loss=(loss.get("name") or type_name(loss)) if isinstance(loss, Mapping) else None,
        label_noise=_label_noise((cfg.get("train_dataloader") or {}).get("dataset")),
        teacher_config=_teachers(cfg) if distils else None,
        network=_network(model.get("student") if distils else model),
    )


def _number(value: Any) -> float | int | str | None:
    """Return a temperature as JSON has it."""
    number = None if value is None else float(value)
    if number == math.inf:
        return "inf"
    return number if number is None or not number.is_integer() else int(number)


def _label_noise(dataset: Any) -> dict[str, Any] | None:
    if isinstance(dataset, (list, tuple)):
        return next(filter(None, map(_label_noise, dataset)), None)
    if not isinstance(dataset, Mapping):
        return None
    if type_name(dataset) == "NoisyLabelDataset":
        return dict(kind=dataset.get("kind"), rate=dataset.get("rate"))
    return _label_noise([dataset.get("dataset"), *dataset.get("datasets", ())])


def _teachers(cfg: Config) -> str | None:
    configs = []
    for teacher in teachers_of(cfg).values():
        config = teacher.config
        configs.append(config if isinstance(config, str) else _network(config) or "a network")
    joined = " + ".join(configs)
    return joined if not later_teachers(cfg) else f"{joined} (in turn)"


def _network(model: Any) -> str | None:
    if not isinstance(model, Mapping):
        return None
    parts = model.get("backbone") or model
    words = [type_name(parts) or "network"]
    for key in _NETWORK:
        size = parts.get(key)
        if size is not None:
            several = isinstance(size, (list, tuple))
            words.append(f"{key}={'x'.join(map(str, size)) if several else size}")
    return " ".join(words)


# How well a network knows the images it was trained on.


def training_data_loader(cfg: Config) -> dict[str, Any]:
    """Return the config of a loader of the training images, in order and un-augmented.

    It is ``test_dataloader`` with the data set of ``train_dataloader`` (its wrappers included:
    noisy labels stay noisy) under the pipeline of the test images.
    """
    loader = copy.deepcopy(cfg.test_dataloader.to_dict())
    pipelines = _with_pipeline(loader["dataset"])
    dataset = copy.deepcopy(cfg.train_dataloader.dataset.to_dict())
    places = _with_pipeline(dataset)
    if not pipelines or not places:
        raise ValueError(
            "the training data cannot be read un-augmented: train_dataloader.dataset or "
            "test_dataloader.dataset has no pipeline"
        )
    for place in places:
        place["pipeline"] = copy.deepcopy(pipelines[0]["pipeline"])
    if "collate_fn" in cfg.train_dataloader:  # it knows what the data set's wrappers make
        loader["collate_fn"] = copy.deepcopy(cfg.train_dataloader.collate_fn)
    return {**loader, "dataset": dataset}


def _with_pipeline(dataset: Any) -> list[dict]:
    """List the data sets that say their transforms, or the wrappers that say them instead."""
    if isinstance(dataset, (list, tuple)):
        return [place for item in dataset for place in _with_pipeline(item)]
    if not isinstance(dataset, dict) or "pipeline" in dataset:
        return [dataset] if isinstance(dataset, dict) else []
    return _with_pipeline([dataset.get("dataset"), *(dataset.get("datasets") or ())])


@contextmanager
def without_hooks(
    runner: Runner, *kinds: type[Hook], and_with: Sequence[Hook] = ()
) -> Iterator[None]:
    """Leave hooks out of another test; in the end those and the test loop are as before."""
    hooks, test_loop = runner._hooks, runner._test_loop
    runner._hooks = [*(hook for hook in hooks if not isinstance(hook, kinds)), *and_with]
    try:
        yield
    finally:
        runner._hooks, runner._test_loop = hooks, test_loop


def training_metrics(runner: Runner) -> dict[str, Any]:
    """Evaluate on the training images, un-augmented, each once."""
    cfg = runner.cfg
    evaluator = cfg.get("train_evaluator") or cfg.test_evaluator
    runner.logger.info("Measuring on the training images, un-augmented")
    with without_hooks(runner, LoggerHook):  # it would log them as those of the test
        runner._test_loop = TestLoop(
            runner, dataloader=training_data_loader(cfg), evaluator=copy.deepcopy(evaluator)
        )
        metrics = runner._test_loop.run()
    runner.logger.info(f"On the training images: {plain(metrics)}")
    return metrics


# One JSON line for each finished run.


class ResultsRecorder:
    """Tests the final weights of a run and appends its results to a file.

    A row says what was run (config, overrides, seed, command; ``computed``, the content of which
    ``fingerprint`` is the hash; ``tested``, on which data), with what (commit, versions, device,
    teachers' hashes, ``data``: a hash of the training and of the test samples; ``images``, the
    number of training images), in which digits (``numerics``), what came out (``weights``, the
    hash of those in ``final.pth``; ``test``: the metrics of the config's test data with the
    weights after the last epoch, nothing selected; ``train``, if asked for: those of the
    un-augmented training data; ``best``, for information: the validation metrics' maxima) and how
    long it took: the seconds from iteration ``resumed_at`` (0 unless the run was cut off) to
    ``iterations``, for all the runs of a student group, which are ``group_size``.
    """

    def __init__(
        self, path: str | None, cfg: Config, argv: Sequence[str], tool: str = "train.py"
    ) -> None:
        self.path = Path(path) if path is not None else None
        self.command = [*program(tool), *argv]
        self.begin = time.time()
        self.end: float | None = None
        self.run: dict[str, Any] = {}
        self.machine: dict[str, Any] = {}
        if self.path is None:
            return
        # Better now than after days of training.
        check_out_file("--results", self.path)
        if self.path.exists() and not self.path.is_file():  # reading a device may never end
            raise ValueError(f"--results: {self.path} is not a regular file; name another file")
        for row in read_lines(self.path):
            if "fingerprint" not in row:
                what = f"{self.path} holds a line that is of no run, {json.dumps(row)[:60]}"
                raise ValueError(f"{what}; name another file")
        fields = ("test_dataloader", "test_cfg", "test_evaluator")
        missing = [name for name in fields if cfg.get(name) is None]
        if missing:
            raise ValueError(f"--results tests the weights; the config lacks {', '.join(missing)}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
        except OSError as error:
            raise explained(error, self.path) from error

    def start(self, cfg: Config) -> None:
        """Start the clock; called when the teachers are there."""
        self.begin = time.time()
        numerics = describe_numerics(cfg)
        self.run = dict(describe_run(cfg), numerics=numerics, tested=describe_test(cfg))
        self.machine = describe_machine()  # now: the checkout may change while a run goes on

    def stop(self) -> None:
        """Stop the clock, where others are recorded before."""
        self.end = time.time()

    def record(
        self,
        runner: Any,
        args: argparse.Namespace,
        started: TrainingStarted,
        prefix: str = "",
        group_size: int = 1,
    ) -> dict | None:
        """Test and append."""
        if self.path is None:
            return None
        seconds = (self.end or time.time()) - self.begin
        for average in averaged_networks(runner):  # a test begins their hooks anew, of the model
            unwrapped(runner).load_state_dict(average.module.state_dict())
        metrics = runner.test()
        train = training_metrics(runner) if args.train_metrics else None
        if not is_main_process():
            return None
        label_noise = train_metainfo(runner).get("label_noise")
        # As resumed: with the checkpoint's seed.
        computed = getattr(runner, "computed", None) or self.run["computed"]
        row = dict(
            self.run,
            computed=computed,
            fingerprint=fingerprint(computed),
            label_noise=plain(label_noise),
            labels=label_noise and label_noise["sha256"],
            config=args.config,
            overrides=plain(args.cfg_options),
            seed=runner.seed,  # where the run was resumed, the checkpoint's
            processes=runner.world_size,
            weights=weights_hash(Path(runner.work_dir, FINAL)),
            epochs=runner.epoch,
            iterations=runner.iter,
            images=len(runner.train_dataloader.dataset),
            resumed_at=runner.iter if started.iteration is None else started.iteration,
            test=plain(metrics),
            train=plain(train),
            best=best_metrics(runner, prefix),
            data=dict(
                train=dataset_hash(runner.train_dataloader.dataset),
                test=dataset_hash(runner.test_dataloader.dataset),
            ),
            threads=torch.get_num_threads(),
            train_seconds=round(seconds, 1),
            group_size=group_size,
            command=self.command,
            **self.machine,
            finished=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        append_line(self.path, row)
        return row


def best_metrics(runner: Runner, prefix: str = "") -> dict[str, float]:
    """Return the largest value that each validation metric had in training."""
    begin = f"val/{prefix}"
    return {
        key.removeprefix(begin): float(buffer.data[0].max())
        for key, buffer in runner.message_hub.log_scalars.items()
        if key.startswith(f"{begin}accuracy/") and len(buffer.data[0])
    }


def append_line(path: Path, row: dict) -> None:
    """Append one JSON line, whole or not at all, also with other processes appending.

    What a process that was killed left of its line is taken away; whatever else is there stays.
    """
    line = (json.dumps(row, sort_keys=True) + "\n").encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as file:
            with suppress(OSError):  # of a disk without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            content = file.read()
            end, new = content.rfind(b"\n") + 1, line
            if not _is_torn(content[end:]):  # only its end is missing
                end, new = len(content), b"\n" + line
            file.truncate(end)
            try:
                _write_all(file, new)
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise explained(error, path, len(line)) from error


def _write_all(file: Any, content: bytes) -> None:
    while content:
        content = content[file.write(content) :]
    os.fsync(file)


def read_lines(path: Path) -> list[dict]:
    """Read the rows of a results file; none where it does not exist.

    A last line without its end is passed over: it is being written, or its process was killed.
    """
    if not path.is_file():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    if not _is_torn(last):
        lines.append(last)
    rows = {number: _row_of(line) for number, line in enumerate(lines, 1) if line.strip()}
    for number, row in rows.items():
        if row is None:
            what = f"{path}:{number} is not a results line"
            raise ValueError(f"{what}; remove it or name another file")
    return [row for row in rows.values() if row is not None]


def find_row(
    cfg: Config, rows: list[dict], processes: int = 1, measured: Collection[str] = ()
) -> dict | None:
    """Return the newest results row of a run, or None.

    A row counts while the run's config still says the same of training and of the test data, its
    teachers are the same files, and its weights are there (others may need them as a teacher) and
    no others.
    """
    weights = weights_hash(Path(cfg.work_dir, FINAL))
    if weights is None:
        return None
    expected, tested = fingerprint_of(cfg, processes), describe_test(cfg)
    for row in reversed(rows):
        same = row.get("weights") == weights and row_fingerprint(row) == expected
        if same and same_test(row, tested) and all(holds(row, key) for key in measured):
            return row
    return None


def holds(row: dict, key: str) -> bool:
    """Say whether a results row has a measurement."""
    split, _, name = key.partition(".")
    return row.get(split) is not None and (not name or name in row[split])


def _row_of(line: bytes) -> dict | None:
    with suppress(ValueError):
        row = json.loads(line)
        return row if isinstance(row, dict) else None
    return None


def _is_torn(last: bytes) -> bool:
    """Whether what stands behind the last line's end is nothing, or the beginning of a row.

    A disk that lost its power may have zeros where the rest should be.
    """
    last = last.rstrip(b"\0")
    begun = last.startswith(b'{"') or last == b"{"
    return not last.strip() or (begun and _row_of(last) is None)


def plain(value: Any) -> Any:
    """Turn metrics or settings into what JSON and YAML can hold."""
    if isinstance(value, (torch.Tensor, np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (int, float, str, type(None))) else str(value)
