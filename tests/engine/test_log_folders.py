"""Logs, whatever the clock says."""

import json
from pathlib import Path

import numpy as np
from commands import Tiny, folder_of, train
from runs import digits_student, run_config

from mmkd_logit.engine.fingerprint import read_run
from mmkd_logit.engine.runner import QuietRunner
from mmkd_logit.lab.report.data import read_scalars
from mmkd_logit.lab.tables import find_files


def test_each_start_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    configs = [run_config(digits_student(), tmp_path) for _ in range(3)]
    names = [QuietRunner.from_cfg(config).timestamp for config in configs]
    assert len(set(names)) == 3
    assert sorted(names) == names
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == names


def test_each_start_has_a_name_of_its_own(tmp_path, monkeypatch):
    """MMEngine keeps loggers and values by it, for the life of the process."""
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.0)
    configs = [run_config(digits_student(), tmp_path / str(n)) for n in range(2)]
    configs[1].experiment_name = configs[0].experiment_name
    runners = [QuietRunner.from_cfg(config) for config in configs]
    assert runners[0].experiment_name != runners[1].experiment_name
    assert runners[0].message_hub is not runners[1].message_hub


def scalars(folder):
    return [Path(path) for path in find_files(folder, None)["scalars"]]


def test_a_clock_that_jumps(workplace, monkeypatch):
    """Into the future for the first part of a run, back for the rest, and on for another run."""
    tiny = Tiny()
    folder = folder_of(tiny.student)
    now = 2_000_000_000.0
    monkeypatch.setattr("time.time", lambda: now)
    train(tiny.student)
    now = 1_600_000_000.0
    train(tiny.student, "--resume", train_cfg__max_epochs=2)
    first, second = scalars(folder)
    assert read_run(folder)["logs"] == [path.parts[-3] for path in (first, second)]
    steps = [read_scalars([path])["epoch"] for path in (first, second)]
    epochs = [values.tolist() for _, values in steps]
    assert epochs == [[1], [2]]
    steps, values = read_scalars([first, second])["loss"]
    assert steps.tolist() == [2, 4]
    # What is done again counts as it was done last, also where the names of folders say no.
    second.rename(second.with_name("kept"))
    again = folder / "20000101_000000/vis_data/scalars.json"
    again.parent.mkdir(parents=True)
    again.write_text(json.dumps(dict(loss=-1.0, step=2)) + "\n")
    content = json.loads((folder / "run.json").read_text())
    content["logs"].append("20000101_000000")
    (folder / "run.json").write_text(json.dumps(content))
    assert scalars(folder) == [first, again]
    assert read_scalars(scalars(folder))["loss"][1][0] == -1.0
    # A run that begins anew has no curve of the one before.
    train(tiny.student)
    (only,) = scalars(folder)
    assert only not in (first, second, again)
    np.testing.assert_array_equal(read_scalars([only])["loss"][1], values[:1])
