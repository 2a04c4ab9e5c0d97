"""Experiment files as tools/reproduce.py writes them, in full, and figures for their report."""

import json
from types import SimpleNamespace

import numpy as np

from mmkd_logit.lab.report.style import Drawing, new_figure

KEY = "test.accuracy/top1"


def row_of(name, seed, top1):
    """A line of runs.jsonl."""
    return dict(
        seed=seed, config=f"configs/kd/{name}.py", overrides={"model.alpha": 0.9}, epochs=30,
        iterations=450, resumed_at=0, processes=1, group_size=1, train_seconds=12.5, threads=1,
        test={"accuracy/top1": top1, "accuracy/per_class": [1.0, 2.0]}, train=None,
        best={"accuracy/top1": top1}, weights=f"{seed}{name}".ljust(64, "f"), teachers=["e" * 64],
        fingerprint="0123456789abcdef", data=dict(train="aa", test="bb"), numerics="float32",
        device="CPU (x86_64, 2 cores)", commit="c" * 40, dirty=False,
        versions=dict(python="3.11.7", torch="2.15.0"), finished=f"2026-01-0{seed + 1}T00:00:00Z",
        command=["python", "tools/train.py"],
    )  # fmt: skip


def run_of(name, seed, top1, method=None):
    """A run; failed where it has no number."""
    folder = f"work_dirs/{name}/seed{seed}"
    command = ["python", "tools/train.py", f"configs/kd/{name}.py", "--seed", str(seed)]
    return dict(
        name=name, seed=seed, work_dir=folder, config=f"configs/kd/{name}.py", overrides=[],
        epochs=30, teachers=["work_dirs/teacher/seed0"], command=command,
        method=method or dict(kind="mse", tau=None, alpha=1.0, loss="LogitMSELoss",
                              label_noise=None, teacher_config="configs/wrn/t.py", network="WRN"),
        row=None if top1 is None else row_of(name, seed, top1),
        weights=None if top1 is None else row_of(name, seed, top1)["weights"],
        files=dict(log=f"{folder}/train.log", scalars=[f"{folder}/1/vis_data/scalars.json"],
                   dumps=dict(test=f"{folder}/logits/test.npz")),
    )  # fmt: skip


def cell_of(values, paper=None, mark="S"):
    """A cell of a metric, from the numbers of its seeds."""
    by_seed = {str(seed): value for seed, value in enumerate(values) if value is not None}
    numbers = list(by_seed.values())
    mean = float(np.mean(numbers)) if numbers else None
    return dict(
        by_seed=by_seed, mean=mean, n=len(numbers), failed=len(values) - len(numbers),
        std=float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None,
        paper=paper, mark="" if paper is None else mark,
        difference=None if paper is None or mean is None else mean - paper,
    )  # fmt: skip


def record_of(cells, name="table1", **changed):
    """An experiment.

    Args:
        cells: By the name of the runs: row, column, numbers of the seeds, the paper's number.
        name: Of the experiment.
        **changed: Fields that are otherwise.
    """
    runs = [run_of(n, s, v) for n, (_, _, vs, _) in cells.items() for s, v in enumerate(vs)]
    metric = dict(
        title="test top-1 (%)", key=KEY, comparisons=[dict(first="a", second="b", text="a > b")],
        cells={n: cell_of(values, paper) for n, (_, _, values, paper) in cells.items()},
    )  # fmt: skip
    record = dict(
        format=2, name=name, scale=None, title=f"Title of {name}", note="A note.",
        protocol="Weights after the last epoch.", legend=dict(S="read in a source"), root="..",
        command=["python", "tools/reproduce.py", name, "--only", "*_mse"],
        cells={n: [row, column] for n, (row, column, _, _) in cells.items()},
        metrics=[metric], runs=runs,
    )  # fmt: skip
    return {**record, **changed}


LIST = dict(
    ce=("CE", "", [70.0, 72.0], 71.5), kl=("KL tau 3", "", [71.0, None], 74.0),
    mse=("MSE", "", [None, None], 75.0), cited=("theirs alone", "", [], 60.25),
)  # fmt: skip


def write_record(root, record, place=None):
    """Write an experiment file where tools/reproduce.py does, and its rows to runs.jsonl."""
    where = "/".join(filter(None, [record.get("scale"), record["name"]]))
    path = root / "results" / (place or f"{where}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = [{key: v for key, v in run.items() if key != "row"} for run in record["runs"]]
    path.write_text(json.dumps({**record, "runs": runs}))
    with open(root / "results" / "runs.jsonl", "a") as file:
        for run in record["runs"]:
            if run["row"]:
                file.write(json.dumps(run["row"], sort_keys=True) + "\n")
    return path


def write_run_files(root, record):
    """Make the files that the runs of an experiment left."""
    for run in record["runs"]:
        found = run["files"]
        for name in [found["log"], *found["scalars"], *found["dumps"].values()]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(f"this is {name}\n")


def drawing_of(name="curves", **fields):
    """A small figure."""
    figure = new_figure(2.0, 3.0)
    figure.subplots().plot([0, 1], [0, 1])
    known = dict(title=f"Figure {name}", caption="What is drawn.", paper="Alike.", figure=figure)
    return Drawing(name, **{**known, **fields})


def figures_of(*names):
    """Modules with small figures, ``losses`` of no experiment and others of every one."""
    return {
        name: SimpleNamespace(
            NEEDS=None if name == "losses" else "runs",
            draw=lambda *experiment, name=name: [drawing_of(name)],
        )
        for name in names
    }


HOSTILE = (
    "<script>document.title='owned'</script>",
    "</script></style></title><img src=x onerror=\"document.title='owned'\">",
    "\" autofocus onfocus=\"document.title='owned'\" x='",
    "javascript:document.title='owned'//",
    "--><svg onload=document.title='owned'>",
    "{{ 7 * 7 }}{% raw %}&lt;",
    "../../../etc/passwd",
    "a\u202eb\ud800-\udcff\x01\x7f\r\n\tz",
)


def hostile_record(name, text):
    """An experiment that says the same hostile thing wherever it may say anything."""
    record = record_of(
        dict(
            ce=("CE", "a", [70.0, None], 71.5),
            kl=("KL", "b", [71.0], 74.0),
            t=("T", "", [1.0], None),
        )
    )

    def spoil(value):
        if isinstance(value, str):
            return text + value
        if isinstance(value, list):
            return [spoil(item) for item in value]
        if isinstance(value, dict):
            return {key if key in FIELDS else text + key: spoil(v) for key, v in value.items()}
        return value

    return {**spoil(record), "root": "..", "name": text, "scale": name}


FIELDS = {
    *record_of(LIST), *record_of(LIST)["metrics"][0], *cell_of([1.0]), *run_of("a", 0, 1.0),
    *run_of("a", 0, 1.0)["method"], *row_of("a", 0, 1.0), "log", "scalars", "dumps", "0", "1",
    "text",
}  # fmt: skip
