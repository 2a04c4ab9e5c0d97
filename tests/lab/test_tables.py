"""Tables in Markdown and CSV, and the JSON that the report reads."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmkd_logit.lab.experiment import Experiment, Run
from mmkd_logit.lab.tables import describe_experiment, find_files, paired_difference, render, to_csv


def test_equal_differences():
    assert paired_difference([1.0, 2.0], [1.0, 2.0]) == (0, 0, 0, 1)
    assert paired_difference([2.0, 3.0], [1.0, 2.0]) == (1, 1, 1, 0)
    assert paired_difference([1.0, 2.0], [2.0, 3.0]) == (-1, -1, -1, 0)


@pytest.mark.parametrize(
    ("first", "second"), [([1], [1]), ([], []), ([1, 2], [1]), ([1, 2, 3], [1, 2])]
)
def test_too_few_seeds(first, second):
    with pytest.raises(ValueError, match="need the same 2 or more seeds, got"):
        paired_difference(first, second)


@pytest.fixture
def make(tmp_path):
    """Write an experiment of two runs."""

    def make(more="", **kwargs):
        file = tmp_path / "table9.py"
        file.write_text(
            "title = 'The title'\n"
            "runs = dict(alone=dict(row='Student alone', config='alone.py'),\n"
            "            kd=dict(row='Distilled', config='kd.py'))\n"
            "comparisons = [('kd', 'alone')]\n" + more
        )
        return Experiment(file, **kwargs)

    return make


def row(top1, **kwargs):
    defaults = dict(
        test={"accuracy/top1": top1},
        commit="0123456789abcdef",
        dirty=False,
        epochs=30,
        device="CPU (x86_64, 2 cores)",
        versions=dict(torch="2.15.0"),
        weights="abc",
    )
    return {**defaults, **kwargs}


def found(alone, kd, **kwargs):
    return {
        Run(name, f"{name}.py", (), seed, None, seed): None
        if value is None
        else row(value, **kwargs)
        for name, values in (("alone", alone), ("kd", kd))
        for seed, value in enumerate(values)
    }


def test_a_table(make):
    lines = render(make(), found([90.0, 91.0, 92.0], [92.0, 92.0, 94.0])).splitlines()
    assert lines == [
        "### The title",
        "",
        "| run | test top-1 (%), ours (n) |",
        "|---|---|",
        "| Student alone | 91.00 ± 1.00 (3) |",
        "| Distilled | 92.67 ± 1.15 (3) |",
        "",
        "- Distilled minus Student alone: +1.67 points, 95 % interval [+0.23, +3.10], p = 0.038 "
        "(paired t-test over 3 seeds).",
        "",
        "Weights after the last epoch, nothing selected on the test data; mean ± sample standard "
        "deviation (n seeds); 30 epochs; CPU (x86_64, 2 cores); torch 2.15.0; commit "
        "0123456789ab.",
    ]


def test_failures_are_shown_and_pairs_kept_together(make):
    text = render(make(), found([90.0, None, 92.0], [None, 95.0, 93.0]))
    assert "| Student alone | 91.00 ± 1.41 (2, 1 failed) |" in text
    assert "| Distilled | 94.00 ± 1.41 (2, 1 failed) |" in text
    said = "Distilled minus Student alone: +1.00 points, one seed; --seeds 5 gives an interval."
    assert said in text  # seed 2 only
    text = render(make(), found([90.0, None], [None, 95.0]))
    assert "Distilled minus Student alone: no seed finished both." in text
    text = render(make(), found([None], [None]))
    assert "| Distilled | 1 failed |" in text
    assert text.endswith("Nothing finished.")


def test_mixed_rows_say_so(make):
    rows = found([90.0], [91.0])
    (first, second) = rows
    rows[second].update(dirty=True, device="NVIDIA H100", epochs=3, commit=None)
    text = render(make(), rows)
    assert text.endswith(
        "3, 30 epochs; CPU (x86_64, 2 cores), NVIDIA H100; torch 2.15.0; commit 0123456789ab, "
        "unknown+."
    )
    rows[first].update(dirty=True)
    assert "0123456789ab+" in render(make(), rows)
    reduced = make(options=("train_cfg.max_epochs=1",), epochs=4)
    assert render(reduced, rows).endswith(" Reduced: train_cfg.max_epochs=1 --epochs 4.")


def test_diverged_runs_are_shown(make):
    assert "nan" in render(make(), found([math.nan, 1.0], [1.0, 2.0]))


MATRIX = """
title = 'Table 9'
runs = {
    f'{s}_{m}': dict(row=s, column=m, config='c.py')
    for s, m in [('small', 'CE'), ('small', 'MSE'), ('big', 'MSE')]}
runs['teacher'] = dict(config='t.py')
metrics = [
    dict(title='test (%)', key='test.accuracy/top1', mark='S',
         paper=dict(small_CE=72.68, small_MSE=(75.5, 'R'))),
    dict(title='train (%)', key='train.accuracy/top1')]
note = 'A note.'
"""


def matrix(tmp_path):
    file = tmp_path / "table9.py"
    file.write_text(MATRIX)
    rows = {
        Run(name, "c.py", (), 7, None, 0): row(top1, train={"accuracy/top1": top1 + 9})
        for name, top1 in (("small_CE", 70.0), ("big_MSE", 80.0), ("teacher", 90.0))
    }
    return Experiment(file), {**rows, Run("small_MSE", "c.py", (), 7, None, 0): None}


def test_rows_columns_and_the_papers_numbers(tmp_path):
    lines = render(*matrix(tmp_path)).splitlines()
    assert lines == [
        "### Table 9",
        "",
        "**test (%)**",
        "",
        "|  |  | CE | MSE |",
        "|---|---|---|---|",
        "| small | ours (n) | 70.00 (1) | 1 failed |",
        "|  | paper | 72.68 S | 75.50 R |",
        "|  | difference | -2.68 |  |",
        "| big | ours (n) |  | 80.00 (1) |",
        "",
        "**train (%)**",
        "",
        "|  |  | CE | MSE |",
        "|---|---|---|---|",
        "| small | ours (n) | 79.00 (1) | 1 failed |",
        "| big | ours (n) |  | 89.00 (1) |",
        "",
        "A note.",
        "",
        "Weights after the last epoch, nothing selected on the test data; mean ± sample standard "
        "deviation (n seeds); 30 epochs; CPU (x86_64, 2 cores); torch 2.15.0; commit "
        "0123456789ab. Paper's numbers: R: remembered, unverified; S: read in a source.",
    ]


def test_a_comparison_within_a_row_names_the_row_once(tmp_path):
    _, rows = matrix(tmp_path)
    pairs = "comparisons = [('small_MSE', 'small_CE'), ('big_MSE', 'small_MSE')]"
    (tmp_path / "table9.py").write_text(f"{MATRIX}{pairs}")
    text = render(Experiment(tmp_path / "table9.py"), rows)
    assert "- small: MSE minus CE: no seed finished both." in text
    assert "- big, MSE minus small, MSE: no seed finished both." in text


def test_a_run_with_a_seed_of_its_own_is_beside_every_seed(make):
    experiment = make("runs['alone']['seed'] = 0")
    text = render(experiment, found([90.0], [91.0, 92.0, 93.0]))
    assert "Distilled minus Student alone: +2.00 points, 95 % interval [-0.48, +4.48]" in text
    assert "(t-test with one run of Student alone over 3 seeds)" in text
    teacher = (
        "runs = dict(t=dict(config='t.py'), **runs); runs['alone'].update(teacher='t', seed=0)"
    )
    text = render(make(teacher), found([90.0, 89.0, 88.0], [91.0, 92.0, 93.0]))
    assert "(paired t-test over 3 seeds)" in text


def test_small_versions_say_so(tmp_path):
    folder = tmp_path / "paper" / "digits"
    folder.mkdir(parents=True)
    _, rows = matrix(tmp_path)
    (folder / "table9.py").write_text(MATRIX)
    assert ". Reduced: --scale digits --epochs 6. Paper's" in render(
        Experiment(folder / "table9.py", epochs=6), rows
    )


def test_csv_holds_every_cell(tmp_path):
    lines = list(csv.DictReader(to_csv(*matrix(tmp_path)).splitlines()))
    assert [(line["metric"], line["run"]) for line in lines] == [
        (metric, run)
        for metric in ("test.accuracy/top1", "train.accuracy/top1")
        for run in ("small_CE", "small_MSE", "big_MSE")
    ]
    assert lines[0] == dict(
        experiment="table9", metric="test.accuracy/top1", row="small", column="CE", run="small_CE",
        mean="70.0", std="", n="1", failed="0", paper="72.68", mark="S", difference="-2.68",
        epochs="30", seeds="0",
    )  # fmt: skip
    assert (lines[1]["mean"], lines[1]["failed"], lines[1]["mark"]) == ("", "1", "R")


def test_metrics_that_were_not_measured(tmp_path):
    experiment, rows = matrix(tmp_path)
    for value in rows.values():
        if value:
            value["train"] = None
    with pytest.raises(ValueError, match=r"c.py measures \[\] on train and not accuracy/top1"):
        render(experiment, rows)


RECORDED = """
title = 'Table 9'
runs = dict(teacher=dict(config='t.py'),
            ce=dict(row='CE', config='c.py'), mse=dict(row='MSE', config='c.py'))
cited = dict(theirs='only cited')
metrics = [dict(title='test (%)', key='test.accuracy/top1', mark='S',
                paper=dict(ce=72.0, theirs=(75.0, 'R')))]
comparisons = [('mse', 'ce')]
"""


@pytest.fixture
def described(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("table9.py").write_text(RECORDED)
    cfg = Config(dict(model=dict(type="ImageClassifier", backbone=dict(type="ResNet", depth=18))))

    def describe(numbers, folder="results/small"):
        rows = {
            Run(name, f"{name}.py", (), 1000 + seed, None, seed): value and row(value)
            for name, values in numbers.items()
            for seed, value in enumerate(values)
        }
        configs = {run.work_dir: cfg for run in rows}
        experiment = Experiment("table9.py")
        record = describe_experiment(experiment, rows, configs, ["python", "me"], folder)
        return json.loads(json.dumps(record))

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


def test_the_way_back(described):
    assert described(dict(ce=[70.0]), "a/b/c")["root"] == "../../.."


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
    grouped = dict(row(1.0), group_size=3, command=["python", "t.py", "g/runs.txt", "--results"])
    assert find_files("w", grouped)["log"] == "g/train.log"
    Path("g/train.log").unlink()
    np.savez("w/logits/train.npz", identity=np.array(json.dumps(dict(weights="abc"))))
    dumps = dict(test="w/logits/test.npz", train="w/logits/train.npz")
    assert find_files("w", None)["dumps"] == dumps
    dumps.pop("test")  # of which nobody knows what it is of
    assert find_files("w", dict(row(1.0), weights="abc"))["dumps"] == dumps
    assert find_files("w", dict(row(1.0), weights="others"))["dumps"] == {}
    assert find_files("w", grouped)["log"] == "w/train.log"
