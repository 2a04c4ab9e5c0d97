import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmkd_logit.lab.experiment import Experiment, Run
from mmkd_logit.lab.tables import describe_experiment, find_files, write_record

TEXT = """
title = 'Table 9'
runs = dict(teacher=dict(config='t.py'),
            ce=dict(row='CE', config='c.py'), mse=dict(row='MSE', config='c.py'))
cited = dict(theirs='only cited')
metrics = [dict(title='test (%)', key='test.accuracy/top1', mark='S',
                paper=dict(ce=72.0, theirs=(75.0, 'R')))]
comparisons = [('mse', 'ce')]
"""


def row(top1):
    return dict(
        test={"accuracy/top1": top1}, train=None, commit="c" * 40, dirty=False, epochs=30,
        device="CPU", versions=dict(torch="2.15.0"), together=1, command=["python", "x"],
        weights="abc",
    )  # fmt: skip


@pytest.fixture
def described(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("table9.py").write_text(TEXT)
    cfg = Config(dict(model=dict(type="ImageClassifier", backbone=dict(type="ResNet", depth=18))))

    def describe(numbers, folder="results/small"):
        rows = {
            Run(name, f"{name}.py", (), 1000 + seed, None, seed): value and row(value)
            for name, values in numbers.items()
            for seed, value in enumerate(values)
        }
        configs = {run.work_dir: cfg for run in rows}
        return describe_experiment(Experiment("table9.py"), rows, configs, ["python", "me"], folder)

    return describe


def test_cells_and_comparisons(described):
    record = described(dict(teacher=[90.0, 90.0], ce=[70.0, 72.0], mse=[None, 75.0]))
    assert record["format"] == 2
    assert (record["name"], record["command"]) == ("table9", ["python", "me"])
    assert record["cells"] == dict(ce=["CE", ""], mse=["MSE", ""], theirs=["only cited", ""])
    (metric,) = record["metrics"]
    assert metric["cells"]["ce"] == dict(
        by_seed={"0": 70.0, "1": 72.0}, mean=71.0, std=pytest.approx(math.sqrt(2)), n=2, failed=0,
        paper=72.0, mark="S", difference=-1.0,
    )  # fmt: skip
    one = dict(by_seed={"1": 75.0}, mean=75.0, std=None, n=1, failed=1)
    assert metric["cells"]["mse"] == dict(one, paper=None, mark="", difference=None)
    assert metric["cells"]["theirs"]["paper"] == 75.0
    (pair,) = metric["comparisons"]
    assert (pair["first"], pair["second"]) == ("mse", "ce")
    assert pair["text"].startswith("MSE minus CE: +3.00 points, one seed")
    assert record["legend"] == dict(R="remembered, unverified", S="read in a source")
    assert record["protocol"].startswith("Weights after the last epoch, ")
    assert json.loads(json.dumps(record)) == record


def test_runs(described):
    """Teachers without a cell and failed runs are there too."""
    record = described(dict(teacher=[90.0], ce=[None]))
    teacher, student = record["runs"]
    assert (teacher["name"], teacher["weights"]) == ("teacher", "abc")
    assert (teacher["seed"], teacher["epochs"], teacher["method"]["kind"]) == (0, 30, "ce")
    assert student["weights"] is None
    assert student["files"] == dict(log=None, scalars=[], dumps={})
    words = ["teacher.py", "--seed", "1000", "--work-dir", "work_dirs/teacher/seed1000"]
    assert teacher["command"] == ["python", "tools/train.py", *words]


@pytest.mark.parametrize(
    ("folder", "root"),
    [("results", ".."), ("a/b/c", "../../.."), (".", "."), ("/elsewhere/results", None)],
)
def test_the_way_back(described, tmp_path, folder, root):
    record = described(dict(ce=[70.0]), folder)
    expected = root or os.path.relpath(tmp_path, "/elsewhere/results")
    assert record["root"] == expected
    assert (Path(folder).resolve() / record["root"]).resolve() == tmp_path or root is None


def test_files_of_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("w/2/vis_data/scalars.json", "w/1/vis_data/scalars.json", "w/logits/test.npz"):
        Path(name).parent.mkdir(parents=True)
        Path(name).touch()
    scalars = ["w/1/vis_data/scalars.json", "w/2/vis_data/scalars.json"]
    expected = dict(log=None, scalars=scalars, dumps=dict(test="w/logits/test.npz"))
    assert find_files("w", None) == expected
    Path("w/train.log").touch()
    assert find_files("w", row(1.0))["log"] == "w/train.log"
    Path("g").mkdir()
    Path("g/train.log").touch()
    together = dict(row(1.0), together=3, command=["python", "t.py", "g/runs.txt", "--results"])
    assert find_files("w", together)["log"] == "g/train.log"
    Path("g/train.log").unlink()
    np.savez("w/logits/train.npz", identity=np.array(json.dumps(dict(weights="abc"))))
    dumps = dict(test="w/logits/test.npz", train="w/logits/train.npz")
    assert find_files("w", None)["dumps"] == dumps
    dumps.pop("test")  # of which nobody knows what it is of
    assert find_files("w", dict(row(1.0), weights="abc"))["dumps"] == dumps
    assert find_files("w", dict(row(1.0), weights="others"))["dumps"] == {}
    assert find_files("w", together)["log"] == "w/train.log"


def test_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "table9.json"
    write_record(path, dict(a=1))
    with pytest.raises(TypeError):
        write_record(path, dict(a=object()))
    assert json.loads(path.read_text()) == dict(a=1)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match=r"x\.json cannot be written"):
        write_record(path / "x.json", dict(a=1))
