"""What is run, what is skipped, and what is run again."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmkd_logit.engine import group as group_tool
from mmkd_logit.engine import logits as export_tool
from mmkd_logit.engine import precompute as cache_tool
from mmkd_logit.engine import train as train_tool
from mmkd_logit.engine.fingerprint import describe_run, describe_test, weights_hash, write_run
from mmkd_logit.engine.lock import only_run_in
from mmkd_logit.engine.logits import FORMAT, export_path, find_exports
from mmkd_logit.engine.results import append_line, find_row, read_lines
from mmkd_logit.engine.train import build_config, build_parser
from mmkd_logit.lab.experiment import Experiment, read_once
from mmkd_logit.lab.scheduler import Scheduler, group_runs

RESULTS = Path("results", "runs.jsonl")
TOOLS = {
    "train.py": train_tool,
    "train_group.py": group_tool,
    "precompute.py": cache_tool,
    "dump_logits.py": export_tool,
}
CONFIG = """
train_dataloader = dict(batch_size=8, dataset=dict(type='CIFAR100', pipeline=[]))
test_dataloader = dict(batch_size=8, dataset=dict(type='CIFAR100', pipeline=[]))
val_dataloader, val_cfg, val_evaluator = test_dataloader, dict(), dict(type='Accuracy')
test_cfg, test_evaluator = dict(), dict(type='Accuracy')
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
"""


class Machine:
    """A pool that 'trains' in no time and keeps a list of what it was asked for."""

    def __init__(self, room=1, processes=1):
        self.calls, self.exported = [], []
        self.breaks = {}  # config: 'before' it begins, 'cut off', or 'killed' before its row
        self.full = set()  # folders whose disk has no space for logits
        self.trained = 0
        self.room, self.processes = room, processes
        self.running = {}
        self.most = 0
        self.stopped = False

    def has_room(self):
        return len(self.running) < self.room

    def start(self, folder, argv, tool):
        assert self.has_room()
        args = TOOLS[tool].build_parser().parse_args(argv)
        if tool == "train.py":
            assert folder == args.work_dir
            assert all(need.is_file() for need in self.needs(args))
            self.calls.append((Path(args.config).stem, args.seed, args.resume))
        elif tool == "precompute.py":
            checkpoint = cache_tool.build_config(args).model.teacher.checkpoint
            self.calls.append(("fill", args.seed, args.epochs, checkpoint))
        elif tool == "dump_logits.py":
            assert args.checkpoint == f"{folder}/final.pth"
        self.running[folder] = getattr(self, tool.removesuffix(".py")), args
        self.most = max(self.most, len(self.running))

    def finished(self):
        ended = {folder: run(args) for folder, (run, args) in self.running.items()}
        self.running = {}
        return ended

    def stop(self):
        self.stopped = True

    def needs(self, args):
        cfg = build_config(args)
        checkpoint = cfg.model.get("teacher", {}).get("checkpoint", __file__)
        return [Path(checkpoint), Path(cfg.train_dataloader.dataset.get("scores", __file__))]

    def train(self, args):
        cfg = build_config(args)
        folder = Path(cfg.work_dir)
        how = self.breaks.get(Path(args.config).stem)
        folder.mkdir(parents=True, exist_ok=True)
        if how == "before":
            with open(folder / "train.log", "a") as log:
                log.write("noise\nerror: no disk\n")
            return False
        write_run(folder, **describe_run(cfg, self.processes))
        if how == "cut off":
            return False
        final = folder / "final.pth"
        if args.resume is None or not final.is_file():
            self.trained += 1
            final.write_text(f"weights {self.trained}")
        if how == "killed":
            return False
        row = dict(describe_run(cfg, self.processes), weights=weights_hash(final))
        row["train"] = {"accuracy/top1": 99.0} if args.train_metrics else None
        append_line(Path(args.results), dict(row, test={"accuracy/top1": 90.0}, train_seconds=1.0))
        return args.dump_logits is None or self.export(cfg, args.dump_logits)

    def train_group(self, args):
        """Train the runs of a list; 'group' breaks it after the first."""
        lines = [line.split() for line in Path(args.runs).read_text().splitlines()]
        self.calls.append(("group", len(lines)))
        members = [build_parser().parse_args([*line, "--results", args.results]) for line in lines]
        write_run(Path(args.runs).parent, computed={})
        whole = self.breaks.get("group") is None
        return all([self.train(member) for member in members[: None if whole else 1]]) and whole

    def dump_logits(self, args):
        return self.export(export_tool.build_config(args), args.splits)

    def export(self, cfg, splits):
        if cfg.work_dir in self.full:
            Path(cfg.work_dir, "train.log").write_text("error: no space left\n")
            return False
        self.exported.append((cfg.work_dir, tuple(splits)))
        for split in splits:
            identity = dict(describe_run(cfg, 1), format=FORMAT, split=split)
            identity["weights"] = weights_hash(Path(cfg.work_dir, "final.pth"))
            path = export_path(cfg.work_dir, split)
            path.parent.mkdir(exist_ok=True)
            np.savez(path, identity=np.array(json.dumps(identity)))
        return True

    def precompute(self, args):
        return "fill" not in self.breaks


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)


@pytest.fixture
def machine(project_of_three):
    return Machine()


@pytest.fixture
def project_of_three(workplace):
    network = "model = dict(type='ImageClassifier', backbone=dict(type='ResNet', depth={}))\n"
    Path("teacher.py").write_text(CONFIG + network.format(34))
    Path("alone.py").write_text(CONFIG + network.format(18))
    Path("kd.py").write_text(
        CONFIG + "model = dict(type='mmkd_logit.LogitDistiller', "
        "teacher=dict(config='teacher.py', checkpoint='x'))\n"
    )
    Path("experiment.py").write_text(
        "title = 'T'\n"
        "runs = dict(big=dict(row='Big', config='teacher.py'),\n"
        "            alone=dict(row='Alone', config='alone.py'),\n"
        "            kd=dict(row='Distilled', config='kd.py', teacher='big'))\n"
    )


def prepare(machine, seeds=(0,), measured=(), exports=(), share=1, **kwargs):
    read_once.cache_clear()
    experiment = Experiment("experiment.py", **kwargs)
    if measured:
        experiment.metrics = [dict(title=key, key=key, paper={}) for key in measured]
    runs, said = experiment.runs(list(seeds)), []
    plan = {experiment: runs}
    return Scheduler(plan, RESULTS, machine, said.append, share, exports), runs, said


def go(machine, *args, **kwargs):
    scheduler, runs, said = prepare(machine, *args, **kwargs)
    found = scheduler()
    return {(run.name, run.seed): found[run.work_dir] for run in runs}, said


def test_everything_once(machine):
    found, said = go(machine, seeds=(0, 1))
    assert machine.calls == [  # first what others wait for
        *[("teacher", seed, None) for seed in (0, 1)],
        *[(name, seed, None) for seed in (0, 1) for name in ("alone", "kd")],
    ]
    assert all(found.values())
    assert len(read_lines(RESULTS)) == 6
    assert said[0].startswith("[1/6] Big, seed 0: python tools/train.py teacher.py --seed 0 ")
    assert said[1] == "[1/6] Big, seed 0: test top-1 90.00 % in 1 s"
    again, said = go(machine, seeds=(0, 1, 2))
    assert len(machine.calls) == 9
    places = [(s, name) for s in (0, 1) for name in ("Big", "Alone", "Distilled")]
    assert {line for line in said if line.endswith("done before")} == {
        f"[{n}/9] {label}, seed {seed}: done before" for n, (seed, label) in enumerate(places, 1)
    }
    assert {key: again[key] for key in found} == found


def test_a_failure_stops_only_what_needs_it(machine):
    machine.breaks["alone"] = "before"
    found, said = go(machine)
    assert found[("alone", 0)] is None
    assert found[("big", 0)]
    assert found[("kd", 0)]
    assert said[3] == (
        "[2/3] Alone, seed 0: failed, see work_dirs/alone/seed0/train.log error: no disk"
    )
    machine.breaks = {"teacher": "before"}
    with open("teacher.py", "a") as file:
        file.write("optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.2))\n")
    found, said = go(machine)
    assert found[("alone", 0)]
    assert found[("big", 0)] is found[("kd", 0)] is None
    assert not Path("work_dirs/teacher/seed0/final.pth").exists()  # no older weights teach
    assert said[-1].endswith("not trained, its teacher work_dirs/teacher/seed0 failed")


def test_several_at_once_but_no_student_before_its_teacher(machine):
    machine.room = 3
    found, _ = go(machine, seeds=(0, 1))
    assert machine.most == 3
    assert all(found.values())
    order = [call[:2] for call in machine.calls]
    for seed in (0, 1):
        assert order.index(("teacher", seed)) < order.index(("kd", seed))
    assert order[:3] == [("teacher", 0), ("teacher", 1), ("alone", 0)]


def test_rows_without_what_the_table_needs(machine):
    """Weights that are there are not trained again to be measured."""
    go(machine)
    machine.calls.clear()
    trained = machine.trained
    found, _ = go(machine, measured=["train.accuracy/top1"])
    assert [call[2] for call in machine.calls] == ["auto"] * 3
    assert machine.trained == trained
    assert found[("kd", 0)]["train"] == {"accuracy/top1": 99.0}
    machine.calls.clear()
    go(machine, measured=["train.accuracy/top1", "test.accuracy/top1"])
    go(machine)
    assert machine.calls == []
    found, _ = go(machine, measured=["test.calibration/ece"])  # which no row will ever have
    assert machine.calls == [("teacher", 0, "auto"), ("alone", 0, "auto")]
    assert not any(found.values())


def test_several_processes_a_run(machine):
    machine.processes = 2
    go(machine)
    assert len(machine.calls) == 3
    go(machine)
    assert len(machine.calls) == 3
    machine.processes = 1
    go(machine)
    assert len(machine.calls) == 6


def test_the_runs_end_with_us(machine):
    """Ctrl-C, or whatever happens here, leaves no training behind."""

    def interrupt():
        raise KeyboardInterrupt

    machine.finished = interrupt
    with pytest.raises(KeyboardInterrupt):
        go(machine)
    assert machine.stopped


def test_killed_between_the_weights_and_the_row(machine):
    machine.breaks["teacher"] = "killed"
    go(machine)
    machine.breaks.clear()
    machine.calls.clear()
    trained = machine.trained
    found, _ = go(machine)
    assert machine.calls == [("teacher", 0, "auto"), ("kd", 0, None)]
    assert machine.trained == trained + 1  # of the teacher only the row was missing
    assert found[("kd", 0)]["teachers"] == [found[("big", 0)]["weights"]]


def test_a_changed_teacher_teaches_again(machine):
    go(machine)
    machine.calls.clear()
    with open("teacher.py", "a") as file:
        file.write("optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.2))\n")
    found, _ = go(machine)
    assert machine.calls == [("teacher", 0, None), ("kd", 0, None)]
    assert found[("kd", 0)]["teachers"] == [found[("big", 0)]["weights"]]


def test_weights_that_were_lost_or_replaced(machine):
    go(machine)
    machine.calls.clear()
    final = Path("work_dirs/alone/seed0/final.pth")
    final.unlink()
    go(machine)
    final.write_text("of somebody's own run in this folder")
    write_run(final.parent, computed=dict(model="another"))
    go(machine)
    assert machine.calls == [("alone", 0, "auto"), ("alone", 0, None)]


def test_rows_of_others_do_not_count(machine):
    found, _ = go(machine)
    run = Experiment("experiment.py").runs([0])[1]
    cfg = run.build_config()
    row = found[("alone", 0)]
    assert find_row(cfg, [row]) == row
    tested = describe_test(cfg)
    assert find_row(cfg, [dict(row, tested=tested)])
    elsewhere = dict(tested["test_dataloader"], num_workers=7)
    assert find_row(cfg, [dict(row, tested=dict(tested, test_dataloader=elsewhere))])
    newer = dict(row, train_seconds=2)
    assert find_row(cfg, [row, newer]) == newer
    for change in (
        dict(computed=dict(row["computed"], model="x")),
        dict(computed=dict(row["computed"], processes=8)),
        dict(computed=None),
        dict(weights="x"),
        dict(tested=dict(tested, test_dataloader=dict(dataset=dict(type="Digits", split="val")))),
    ):
        assert find_row(cfg, [{**row, **change}]) is None
    assert find_row(cfg, [{}]) is None
    assert find_row(replace(run, seed=9).build_config(), [row]) is None


def not_exported(scheduler):
    return [folder for folder in scheduler.found if scheduler.needs_export(folder)]


FOLDERS = [f"work_dirs/{name}/seed0" for name in ("teacher", "alone", "kd")]


def test_logits_of_runs_that_are_done_and_to_do(project_of_three):
    """Nothing is trained, and no row written, for what is only computed from weights."""
    machine = Machine()
    go(machine, only=("alone",))
    found, said = go(machine, exports=("train", "test"))
    assert machine.calls == [("alone", 0, None), ("teacher", 0, None), ("kd", 0, None)]
    assert sorted(machine.exported) == sorted((folder, ("train", "test")) for folder in FOLDERS)
    assert "[2/3] Alone, seed 0: done before, but for its logits" in said
    words = "alone.py work_dirs/alone/seed0/final.pth --splits train test --seed 0"
    assert any(f"Alone, seed 0: python tools/dump_logits.py {words}" in line for line in said)
    assert "[2/3] Alone, seed 0: its logits are written" in said
    assert all(found.values())
    assert len(read_lines(RESULTS)) == 3
    _, said = go(machine, exports=("train", "test"))
    assert [line.partition(": ")[2] for line in said] == ["done before"] * 3
    assert (len(machine.calls), len(machine.exported)) == (3, 3)
    go(machine, exports=("test", "val"))
    assert machine.exported[3:] == [(folder, ("val", "test")) for folder in FOLDERS]
    assert len(machine.calls) == len(read_lines(RESULTS)) == 3


def test_splits_that_a_run_has_not_are_known_before(project_of_three):
    machine = Machine()
    with open("kd.py", "a") as file:
        file.write("val_dataloader = val_cfg = val_evaluator = None\n")
    with pytest.raises(ValueError, match=r"kd/seed0: logits of the val split need val_dataloader"):
        go(machine, exports=("val",))
    assert machine.calls == []


def test_logits_of_other_weights_are_written_again(project_of_three):
    machine = Machine()
    go(machine, exports=("test",))
    with open("teacher.py", "a") as file:
        file.write("optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.2))\n")
    machine.exported.clear()
    found, _ = go(machine)
    assert find_exports(FOLDERS[2], found[("kd", 0)]["weights"]) == {}
    go(machine, exports=("test",))
    assert machine.exported == [(folder, ("test",)) for folder in (FOLDERS[0], FOLDERS[2])]


def test_logits_that_cannot_be_written_are_no_reason_to_lose_the_run(project_of_three):
    machine = Machine(room=2)
    go(machine, only=("alone",))
    machine.full = {*FOLDERS[1:]}
    scheduler, _, said = prepare(machine, exports=("test",))
    found = scheduler()
    assert all(found.values())
    assert not_exported(scheduler) == FOLDERS[1:]
    for number, (label, folder) in enumerate([("Alone", FOLDERS[1]), ("Distilled", FOLDERS[2])], 2):
        why = f"done, but for its logits; see {folder}/train.log error: no space left"
        assert f"[{number}/3] {label}, seed 0: {why}" in said
    machine.full = set()
    scheduler, _, _ = prepare(machine, exports=("test",))
    scheduler()
    assert not_exported(scheduler) == []
    assert [call[0] for call in machine.calls] == ["alone", "teacher", "kd"]
    machine.breaks["kd"] = "before"
    with open("kd.py", "a") as file:
        file.write("optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.2))\n")
    scheduler, _, said = prepare(machine, exports=("test",))
    assert scheduler()[FOLDERS[2]] is None  # a run that failed is not one without logits
    assert not_exported(scheduler) == []
    assert "failed, see" in said[-1]


@pytest.fixture
def chosen_by_logits(project_of_three):
    """The distilled student trains on samples that the logits of 'big' choose."""
    with open("kd.py", "a") as file:
        file.write(
            "train_dataloader = dict(batch_size=8, dataset=dict(type='mmkd_logit.DataSubset', "
            "by='tld', quantiles=(0, 0.5), dataset=dict(type='CIFAR100', pipeline=[])))\n"
        )
    with open("experiment.py", "a") as file:
        file.write("runs['kd']['scores'] = 'big'\n")


def test_a_run_leaves_the_logits_that_choose_another_s_samples(chosen_by_logits):
    """Also one that is done; nothing else is exported, and a second command does nothing."""
    machine = Machine(room=3)
    go(machine, only=("big",))
    assert machine.exported == []
    found, _ = go(machine)
    assert all(found.values())
    assert machine.exported == [(FOLDERS[0], ("train",))]
    assert [call[0] for call in machine.calls] == ["teacher", "alone", "kd"]
    go(machine)
    go(machine, exports=("test",))
    assert machine.exported[1] == (FOLDERS[0], ("train", "test"))
    assert len(machine.calls) == 3
    machine = Machine(room=3, processes=2)
    found, _ = go(machine)
    assert all(found.values())
    assert [call[0] for call in machine.calls] == ["teacher", "alone", "kd"]
    assert machine.exported == [(FOLDERS[0], ("train",))]


def test_without_the_logits_no_sample_can_be_chosen(chosen_by_logits):
    machine = Machine()
    machine.full = {FOLDERS[0]}
    found, said = go(machine)
    assert [found[(name, 0)] is None for name in ("big", "alone", "kd")] == [False, False, True]
    why = f"not trained, there are no logits of {FOLDERS[0]} to choose its samples by"
    assert f"[3/3] Distilled, seed 0: {why}" in said
    machine.full = set()
    found, _ = go(machine)
    assert found[("kd", 0)]
    assert [call[0] for call in machine.calls] == ["teacher", "alone", "kd"]


def test_mistakes_are_known_before_the_first_training(machine):
    kd = Path("kd.py").rename("other.py")
    with pytest.raises(FileNotFoundError, match=r"the config kd.py does not exist"):
        go(machine)
    kd.rename("kd.py")
    Path("more").mkdir()
    Path("more/kd.py").write_text(Path("kd.py").read_text())
    text = Path("experiment.py").read_text()
    Path("experiment.py").write_text(
        f"{text}runs['second'] = dict(row='2', config='more/kd.py', teacher='big')\n"
    )
    with pytest.raises(ValueError, match="kd and second are different and would both write to"):
        go(machine)
    Path("experiment.py").write_text(text)
    with pytest.raises(ValueError, match="a config has no field 'nonsense'"):
        go(machine, options=("nonsense=1",))
    assert machine.calls == []
    Path("results").touch()
    with pytest.raises(FileExistsError, match="results"):
        go(machine)
    assert machine.calls == []


def test_one_that_somebody_else_trains_is_waited_for(machine, monkeypatch):
    """A second reproduce.py takes what the first has trained, and trains what the first has not."""
    scheduler, runs, said = prepare(machine)
    teacher = next(run for run in runs if run.name == "big")
    other, free = Machine(), []
    lock = only_run_in(teacher.work_dir)
    lock.__enter__()

    def sleep(seconds):
        if len(said) < 3 or free:
            return
        free.append(True)
        other.train(build_parser().parse_args([*teacher.argv, "--results", str(RESULTS)]))
        lock.__exit__(None, None, None)

    monkeypatch.setattr("time.sleep", sleep)
    found = scheduler()
    assert all(found.values())
    assert [name for name, _, _ in machine.calls] == ["alone", "kd"]
    (waits,) = [line for line in said if "waits" in line]
    begin = f"[1/3] Big, seed 0: waits for {teacher.work_dir}, which is in use by process "
    assert waits.startswith(begin)
    assert "[1/3] Big, seed 0: done before" in said


def test_somebody_else_was_faster(machine, monkeypatch):
    """Between our look at the folder and the start of the process, which then is refused."""
    scheduler, runs, said = prepare(machine)
    alone = next(run for run in runs if run.name == "alone")
    train, locks = machine.train, []

    def refused(args):
        if Path(args.config).stem != "alone":
            return train(args)
        locks.append(only_run_in(alone.work_dir))
        locks[0].__enter__()
        return False

    machine.train = refused

    def sleep(seconds):
        if locks and machine.train is refused:
            machine.train = train
            train(build_parser().parse_args([*alone.argv, "--results", str(RESULTS)]))
            locks[0].__exit__(None, None, None)

    monkeypatch.setattr("time.sleep", sleep)
    assert all(scheduler().values())
    assert [name for name, _, _ in machine.calls] == ["teacher", "alone", "kd"]
    assert any("Alone, seed 0: waits for " in line for line in said)
    assert not any("failed" in line for line in said)


THREE_STUDENTS = """
title = 'T'
runs = dict(
    big=dict(config='teacher.py', seed=0),
    alone=dict(row='Alone', config='alone.py'),
    **{f'a{alpha}': dict(
        row=alpha, config='kd.py', teacher='big', overrides=[f'model.alpha={alpha}'])
       for alpha in ('0.1', '0.2', '0.3')})
"""


@pytest.fixture
def three_students(project_of_three):
    Path("experiment.py").write_text(THREE_STUDENTS)
    kd = (
        Path("kd.py")
        .read_text()
        .replace("checkpoint='x'", "checkpoint='x', cache=dict(storage='disk')")
    )
    Path("kd.py").write_text(kd)


def test_a_teachers_logits_are_computed_before_its_students(three_students):
    """Once for each seed, and not for one student, or for none."""
    machine = Machine(room=4)
    found, said = go(machine, seeds=(0, 1))
    assert all(found.values())
    final = "work_dirs/teacher/seed0/final.pth"
    fills = [call for call in machine.calls if call[0] == "fill"]
    assert fills == [("fill", 0, 1, final), ("fill", 1, 1, final)]
    order = [call[:2] for call in machine.calls]
    for seed in (0, 1):
        assert order.index(("fill", seed)) < order.index(("kd", seed))
    assert len(machine.calls) == 1 + 2 + 2 * 4
    assert any(line.endswith("for 3 students") for line in said)
    # Nothing is left to do; then one student, which computes what it needs as it goes.
    machine.calls.clear()
    go(machine, seeds=(0, 1))
    assert machine.calls == []
    for path in Path("work_dirs").glob("kd*0.2*/seed0/final.pth"):
        path.unlink()
    go(machine, seeds=(0, 1))
    assert [call[0] for call in machine.calls] == ["kd"]


def test_students_train_without_precomputed_logits(three_students):
    machine = Machine(room=2)
    machine.breaks["fill"] = "full disk"
    found, said = go(machine)
    assert all(found.values())
    (text,) = [line for line in said if "not precomputed" in line]
    assert text.endswith("see work_dirs/teacher/seed0/precompute/kd-seed0/train.log")
    machine = Machine(processes=2)  # caches are filled by one process
    Path("results/runs.jsonl").unlink()
    go(machine)
    assert {call[0] for call in machine.calls} == {"teacher", "alone", "kd"}


def test_a_group_that_fails_is_trained_one_by_one(three_students):
    with open("kd.py", "a") as file:
        file.write("randomness = dict(seed=0)\n")
    machine = Machine()
    machine.breaks["group"] = "after the first"
    found, said = go(machine, share=8)
    assert all(found.values())
    assert [call[0] for call in machine.calls] == ["teacher", "group", "kd", "kd", "kd"]
    assert sum("failed in a group, see " in line for line in said) == 4
    assert len(read_lines(RESULTS)) == 5


def test_a_group_that_was_killed_is_resumed_whole(three_students):
    machine = Machine()
    go(machine, share=8)
    rows = RESULTS.read_text().splitlines(keepends=True)
    RESULTS.write_text("".join(rows[:2]))  # killed before the other rows
    machine.calls.clear()
    found, said = go(machine, share=8)
    assert all(found.values())
    assert machine.calls == [("group", 4)]
    assert sum("done before" in line for line in said) == 2
    machine.calls.clear()
    go(machine, share=8)
    assert machine.calls == []


TABLE1 = "configs/paper/digits/table1.py"


def groups_of(experiment, size, seeds=(0,)):
    runs = {run.work_dir: run for run in Experiment(experiment).runs(list(seeds))}
    configs = {folder: run.build_config() for folder, run in runs.items()}
    found = group_runs(runs, configs, size)
    assert sorted(folder for group in found for folder in group) == sorted(runs)
    return [[runs[folder].name for folder in group] for group in found], runs


def test_students_of_one_teacher_and_those_without_share(workplace):
    (teacher, *groups), _ = groups_of(TABLE1, 8)
    assert teacher == ["teacher"]  # its weights are needed first
    assert sorted(len(group) for group in groups) == [3, 8, 8, 8, 8]
    together = [name for group in groups for name in group]
    assert sum(name.endswith("_ce") for name in together) == 5  # they have no teacher


def test_seeds_are_apart(workplace):
    found, _ = groups_of(TABLE1, 100, seeds=(0, 1))
    assert sorted(len(group) for group in found) == [1, 1, 35, 35]


@pytest.mark.parametrize("name", ["sequential", "born-again", "ensemble", "data-amount"])
def test_no_group_needs_itself(workplace, name):
    found, runs = groups_of(f"configs/paper/digits/{name}.py", 100)
    by_name = {run.name: run for run in runs.values()}
    for group in found:
        for member in group:
            needs = {run.name for run in by_name[member].needs}
            assert not needs & set(group), (member, group)
    shares = any(len(group) > 1 for group in found)
    assert shares is (name != "born-again")  # there each teaches the next
