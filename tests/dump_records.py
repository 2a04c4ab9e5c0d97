"""Made-up experiment files with dumps beside them: what tools/reproduce.py --dump-logits leaves."""

import hashlib
import json

import numpy as np
import report_records

from mmkd_logit.lab.report.data import Experiment

METHODS = ("ce", 1, 3, 5, 20, "inf", "mse")
NETWORK = "WideResNetCIFAR depth=16 widen_factor=2"
TEACHER = "WideResNetCIFAR depth=28 widen_factor=4"


def hash_of(*words):
    return hashlib.sha256(repr(words).encode()).hexdigest()


def name_of(method, network=NETWORK):
    short = "" if network == NETWORK else f"{network[-1]}_"
    return short + (method if isinstance(method, str) and method != "inf" else f"kl-t{method}")


def network_of(label, classes, features, seed, sharp=7.0, width=1.0):
    """Logits, pre-logits and last layer of a network that knows most labels."""
    generator = np.random.default_rng(seed)
    weight = generator.normal(size=(classes, features)) / np.sqrt(features)
    noise = generator.normal(size=(len(label), features))
    prelogits = sharp * weight[label] + width * noise
    bias = 0.1 * generator.normal(size=classes)
    arrays = dict(logits=prelogits @ weight.T + bias, prelogits=prelogits, weight=weight, bias=bias)
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def arrays_of(method, seed, split, n=60, classes=4, features=8, teacher=True):
    """What a student's dump of a split holds; that of a teacher for ``method=None``."""
    count = n if split == "train" else max(n // 2, 3 * classes)
    label = np.random.default_rng([seed, split == "train"]).integers(classes, size=count)
    whole = dict(index=np.arange(count), label=label, clean_label=label)
    whole["classes"] = np.array([f"class {k}" for k in range(classes)])
    taught = network_of(label, classes, 2 * features, 1000 + seed)
    if method is None:
        return {**whole, **taught}
    place = METHODS.index(method)
    own = network_of(label, classes, features, 10 * seed + place, sharp=4.0 + place)
    if method != "ce":  # the nearer to the teacher, the later in the list
        own["logits"] = (own["logits"] + place * taught["logits"]) / np.float32(1 + place)
        if teacher:
            own |= {f"teacher_{name}": taught[name] for name in ("logits", "prelogits", "weight")}
    return {**whole, **own}


def write_dump(root, run, split, arrays, **identity):
    """Write a dump of a run and say so in its record."""
    path = root / run["work_dir"] / "logits" / f"{split}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    row = run["row"] or {}
    said = {"weights": row.get("weights"), "teachers": row.get("teachers"), "split": split}
    np.savez(path, **arrays, identity=json.dumps({**said, **identity}))
    run["files"]["dumps"][split] = str(path.relative_to(root))


def run_of(name, seed, kind, network, tau=None, teachers=(), **method):
    told = dict(kind=kind, tau=tau, alpha=None if kind == "ce" else 1.0, loss=None)
    told |= dict(label_noise=None, teacher_config="t.py" if teachers else None, network=network)
    run = report_records.run_of(name, seed, 0.0, {**told, **method})
    run.update(
        epochs=20,
        teachers=[teacher["work_dir"] for teacher in teachers],
        command=["python", "tools/train.py"],
        weights=hash_of(name, seed),
        files=dict(log=None, scalars=[], dumps={}),
    )
    taught_by = [teacher["row"]["weights"] for teacher in teachers]
    run["row"].update(weights=run["weights"], teachers=taught_by, data=dict(train="same"), test={})
    return run


def runs_of(seed, methods=METHODS, network=NETWORK, teacher=None, **more):
    """A teacher, unless it is given, and a student by each method."""
    runs = []
    if teacher is None:
        teacher = run_of("teacher", seed, "ce", TEACHER)
        runs.append(teacher)
    for method in methods:
        kind = method if method in ("ce", "mse") else "kl"
        tau = method if kind == "kl" else None
        taught = () if kind == "ce" else (teacher,)
        runs.append(run_of(name_of(method, network), seed, kind, network, tau, taught, **more))
    return runs


def experiment_of(root, runs, name="table1", scale="cpu", command=("python", "tools/reproduce.py")):
    record = dict(
        name=name, scale=scale, title="Table", command=list(command), root="..",
        cells={run["name"]: [run["name"], ""] for run in runs}, metrics=[], runs=runs,
    )  # fmt: skip
    return Experiment(root / "results" / f"{name}.json", root, record)


def whole_experiment(root, seeds=(0,), splits=("train", "test"), methods=METHODS, **sizes):
    """Every student dumped, the teacher not."""
    runs = [run for seed in seeds for run in runs_of(seed, methods)]
    students = [run for run in runs if run["name"] != "teacher"]
    for run in students:
        method = run["method"]["tau"] or run["method"]["kind"]
        for split in splits:
            write_dump(root, run, split, arrays_of(method, run["seed"], split, **sizes))
    return experiment_of(root, runs)
