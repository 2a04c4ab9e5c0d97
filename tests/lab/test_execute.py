"""What is run, what is skipped, and what is run again."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmkd_logit.engine import logits as dump_tool
from mmkd_logit.engine import precompute as cache_tool
from mmkd_logit.engine.fingerprint import describe_run, weights_hash, write_run
from mmkd_logit.engine.lock import only_run_in
from mmkd_logit.engine.logits import FORMAT, dump_path, find_dumps
from mmkd_logit.engine.results import append_line, read_lines
from mmkd_logit.engine.train import build_config, build_parser
from mmkd_logit.lab.experiment import Experiment, read_once
from mmkd_logit.lab.scheduler import Execution, find_row

RESULTS = Path("results", "runs.jsonl")
CONFIG = """
train_dataloader = dict(batch_size=8, dataset=dict(type='CIFAR100', pipeline=[]))
test_dataloader = dict(batch_size=8, dataset=dict(type='CIFAR100', pipeline=[]))
val_dataloader, val_cfg, val_evaluator = test_dataloader, dict(), dict(type='Accuracy')
test_cfg, test_evaluator = dict(), dict(type='Accuracy')
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.1))
"""


class Machine:
    """A pool that 'trains' in no time and keeps a list of what it was told."""

    def __init__(self, room=1, processes=1):
        self.calls = []
        self.breaks = {}  # config: 'before' it begins, 'cut off', or 'killed' before its row
        self.trained = 0
        self.room, self.processes = room, processes
        self.under_way = {}
        self.most = 0
        self.stopped = False

    def has_room(self):
        return len(self.under_way) < self.room

    def start(self, key, words):
        args = build_parser().parse_args(words)
        assert key == args.work_dir
        self.calls.append((Path(args.config).stem, args.seed, args.resume))
        self.under_way[key] = args
        self.most = max(self.most, len(self.under_way))

    def finished(self):
        ended = {key: self.train(args) for key, args in self.under_way.items()}
        self.under_way = {}
        return ended

    def stop(self):
        self.stopped = True

    def train(self, args):
        cfg = build_config(args)
        folder = Path(cfg.work_dir)
        how = self.breaks.get(Path(args.config).stem)
        missing = not Path(cfg.model.get("teacher", {}).get("checkpoint", __file__)).is_file()
        folder.mkdir(parents=True, exist_ok=True)
        if how == "before" or missing:
            Path(folder, "train.log").write_text("noise\nerror: no disk\n")
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
        return True


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


class DumpingMachine(Machine):
    """One that also 'writes' the logits that it is told to."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dumped = []
        self.full = set()  # folders of which a disk that is full lets no logits be written

    def start(self, key, words, tool="train.py"):
        if tool == "train.py":
            return super().start(key, words)
        assert tool == "dump_logits.py"
        args = dump_tool.build_parser().parse_args(words)
        assert args.checkpoint == f"{key}/final.pth"
        assert self.has_room()
        self.under_way[key] = args

    def train(self, args):
        if hasattr(args, "checkpoint"):
            return self.dump(dump_tool.build_config(args), args.splits)
        well = super().train(args)
        if well and args.dump_logits is not None:
            return self.dump(build_config(args), args.dump_logits)
        return well

    def dump(self, cfg, splits):
        if cfg.work_dir in self.full:
            Path(cfg.work_dir, "train.log").write_text("error: no space left\n")
            return False
        self.dumped.append((cfg.work_dir, tuple(splits)))
        for split in splits:
            identity = dict(describe_run(cfg, 1), format=FORMAT, split=split)
            identity["weights"] = weights_hash(Path(cfg.work_dir, "final.pth"))
            path = dump_path(cfg.work_dir, split)
            path.parent.mkdir(exist_ok=True)
            np.savez(path, identity=np.array(json.dumps(identity)))
        return True


def prepare(machine, seeds=(0,), measured=(), dumps=(), **kwargs):
    read_once.cache_clear()
    experiment = Experiment("experiment.py", **kwargs)
    runs = {run: experiment.label(run.name) for run in experiment.runs(list(seeds))}
    said = []
    measured = {run.work_dir: measured for run in runs}
    dumps = {run.work_dir: dumps for run in runs}
    return Execution(runs, RESULTS, machine, said.append, measured, dumps=dumps), runs, said


def go(machine, *args, **kwargs):
    execution, runs, said = prepare(machine, *args, **kwargs)
    found = execution()
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
    assert found[("big", 0)] is found[("kd", 0)] is None  # no older weights are its teacher's
    assert said[-1].endswith("not trained, its teacher work_dirs/teacher/seed0 failed")


def test_only_what_was_cut_off_is_resumed(machine):
    machine.breaks["teacher"] = "cut off"
    go(machine)
    machine.breaks.clear()
    machine.calls.clear()
    go(machine)
    assert machine.calls == [("teacher", 0, "auto"), ("kd", 0, None)]


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


def test_a_changed_config_starts_anew(machine):
    machine.breaks["alone"] = "cut off"
    go(machine)
    machine.breaks.clear()
    machine.calls.clear()
    with open("alone.py", "a") as file:
        file.write("optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.2))\n")
    go(machine)
    assert machine.calls == [("alone", 0, None)]  # not resumed from the older config's checkpoint
    machine.calls.clear()
    with open("alone.py", "a") as file:
        file.write("train_cfg = dict(max_epochs=2)\n")
    go(machine)
    assert machine.calls == [("alone", 0, None)]


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
    newer = dict(row, train_seconds=2)
    assert find_row(cfg, [row, newer]) == newer
    for change in (
        dict(computed=dict(row["computed"], model="x")),
        dict(computed=dict(row["computed"], processes=8)),
        dict(computed=None),
        dict(weights="x"),
    ):
        assert find_row(cfg, [{**row, **change}]) is None
    assert find_row(cfg, [{}]) is None
    assert find_row(replace(run, seed=9).build_config(), [row]) is None


def test_a_torn_results_line_is_no_reason_to_stop(machine):
    go(machine)
    with open(RESULTS, "a") as file:
        file.write('{"fingerprint": "cut o')
    machine.calls.clear()
    go(machine, seeds=(0, 1))
    assert len(machine.calls) == 3
    assert len(read_lines(RESULTS)) == 6


FOLDERS = [f"work_dirs/{name}/seed0" for name in ("teacher", "alone", "kd")]


def test_logits_of_runs_that_are_done_and_to_do(project_of_three):
    """Nothing is trained, and no row written, for what is only computed from weights."""
    machine = DumpingMachine()
    go(machine, only=("alone",))
    found, said = go(machine, dumps=("train", "test"))
    assert machine.calls == [("alone", 0, None), ("teacher", 0, None), ("kd", 0, None)]
    assert sorted(machine.dumped) == sorted((folder, ("train", "test")) for folder in FOLDERS)
    assert "[2/3] Alone, seed 0: done before, but for its logits" in said
    words = "alone.py work_dirs/alone/seed0/final.pth --splits train test --seed 0"
    assert any(f"Alone, seed 0: python tools/dump_logits.py {words}" in line for line in said)
    assert "[2/3] Alone, seed 0: its logits are written" in said
    assert all(found.values())
    assert len(read_lines(RESULTS)) == 3
    _, said = go(machine, dumps=("train", "test"))
    assert [line.partition(": ")[2] for line in said] == ["done before"] * 3
    assert (len(machine.calls), len(machine.dumped)) == (3, 3)
    go(machine, dumps=("test", "val"))
    assert machine.dumped[3:] == [(folder, ("val", "test")) for folder in FOLDERS]
    assert len(machine.calls) == len(read_lines(RESULTS)) == 3


def test_splits_that_a_run_has_not_are_known_before(project_of_three):
    machine = DumpingMachine()
    with open("kd.py", "a") as file:
        file.write("val_dataloader = val_cfg = val_evaluator = None\n")
    with pytest.raises(ValueError, match=r"kd/seed0: logits of the val split need val_dataloader"):
        go(machine, dumps=("val",))
    assert machine.calls == []


def test_logits_of_other_weights_are_written_again(project_of_three):
    machine = DumpingMachine()
    go(machine, dumps=("test",))
    with open("teacher.py", "a") as file:
        file.write("optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.2))\n")
    machine.dumped.clear()
    found, _ = go(machine)
    assert find_dumps(FOLDERS[2], found[("kd", 0)]["weights"]) == {}
    go(machine, dumps=("test",))
    assert machine.dumped == [(folder, ("test",)) for folder in (FOLDERS[0], FOLDERS[2])]


def test_logits_that_cannot_be_written_are_no_reason_to_lose_the_run(project_of_three):
    machine = DumpingMachine(room=2)
    go(machine, only=("alone",))
    machine.full = {*FOLDERS[1:]}
    execution, _, said = prepare(machine, dumps=("test",))
    found = execution()
    assert all(found.values())
    assert execution.undumped() == FOLDERS[1:]
    for number, (label, folder) in enumerate([("Alone", FOLDERS[1]), ("Distilled", FOLDERS[2])], 2):
        why = f"done, but for its logits; see {folder}/train.log error: no space left"
        assert f"[{number}/3] {label}, seed 0: {why}" in said
    machine.full = set()
    execution, _, _ = prepare(machine, dumps=("test",))
    execution()
    assert execution.undumped() == []
    assert [call[0] for call in machine.calls] == ["alone", "teacher", "kd"]
    machine.breaks["kd"] = "before"
    with open("kd.py", "a") as file:
        file.write("optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.2))\n")
    execution, _, said = prepare(machine, dumps=("test",))
    assert execution()[FOLDERS[2]] is None  # a run that failed is not one without logits
    assert execution.undumped() == []
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


class ChoosingMachine(DumpingMachine):
    """One that needs the logits of 'big' to begin with the student."""

    def start(self, key, words, tool="train.py"):
        if key == FOLDERS[2]:
            assert f"train_dataloader.dataset.scores={FOLDERS[0]}/logits/train.npz" in words
            assert Path(FOLDERS[0], "logits", "train.npz").is_file()
        super().start(key, words, tool)


def test_a_run_leaves_the_logits_that_choose_another_s_samples(chosen_by_logits):
    """Also one that is done; nothing else is exported, and a second command does nothing."""
    machine = ChoosingMachine(room=3)
    go(machine, only=("big",))
    assert machine.dumped == []
    found, _ = go(machine)
    assert all(found.values())
    assert machine.dumped == [(FOLDERS[0], ("train",))]
    assert [call[0] for call in machine.calls] == ["teacher", "alone", "kd"]
    go(machine)
    go(machine, dumps=("test",))
    assert machine.dumped[1] == (FOLDERS[0], ("train", "test"))
    assert len(machine.calls) == 3
    machine = ChoosingMachine(room=3, processes=2)
    found, _ = go(machine)
    assert all(found.values())
    assert [call[0] for call in machine.calls] == ["teacher", "alone", "kd"]
    assert machine.dumped == [(FOLDERS[0], ("train",))]


def test_without_the_logits_no_sample_can_be_chosen(chosen_by_logits):
    machine = ChoosingMachine()
    machine.full = {FOLDERS[0]}
    found, said = go(machine)
    assert [found[(name, 0)] is None for name in ("big", "alone", "kd")] == [False, False, True]
    why = f"not trained, there are no logits of {FOLDERS[0]} to choose its samples by"
    assert f"[3/3] Distilled, seed 0: {why}" in said
    machine.full = set()
    found, _ = go(machine)
    assert found[("kd", 0)]
    assert [call[0] for call in machine.calls] == ["teacher", "alone", "kd"]


def test_mistakes_are_known_before_the_first_training(machine, monkeypatch):
    kd = Path("kd.py").rename("other.py")
    with pytest.raises(FileNotFoundError, match=r"the config kd.py does not exist"):
        go(machine)
    kd.rename("kd.py")
    with pytest.raises(ValueError, match="a config has no field 'nonsense'"):
        go(machine, options=("nonsense=1",))
    assert machine.calls == []
    Path("results").touch()
    with pytest.raises(FileExistsError, match="results"):
        go(machine)
    assert machine.calls == []
    monkeypatch.chdir("configs")
    with pytest.raises(FileNotFoundError, match="run from the project's folder"):
        Execution({}, RESULTS, machine, print)


def test_one_that_somebody_else_trains_is_waited_for(machine, monkeypatch):
    """A second reproduce.py takes what the first has trained, and trains what the first has not."""
    monkeypatch.setattr("mmkd_logit.lab.scheduler._LOOK", 0)
    execution, runs, said = prepare(machine)
    teacher = next(run for run in runs if run.name == "big")
    other, free = Machine(), []
    lock = only_run_in(teacher.work_dir)
    lock.__enter__()

    def sleep(seconds):
        if len(said) < 3 or free:
            return
        free.append(True)
        other.train(build_parser().parse_args([*teacher.arguments(), "--results", str(RESULTS)]))
        lock.__exit__(None, None, None)

    monkeypatch.setattr("time.sleep", sleep)
    found = execution()
    assert all(found.values())
    assert [name for name, _, _ in machine.calls] == ["alone", "kd"]
    (waits,) = [line for line in said if "waits" in line]
    begin = f"[1/3] Big, seed 0: waits for {teacher.work_dir}, which is in use by process "
    assert waits.startswith(begin)
    assert "[1/3] Big, seed 0: done before" in said


def test_somebody_else_was_faster(machine, monkeypatch):
    """Between our look at the folder and the start of the process, which then is refused."""
    monkeypatch.setattr("mmkd_logit.lab.scheduler._LOOK", 0)
    execution, runs, said = prepare(machine)
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
            train(build_parser().parse_args([*alone.arguments(), "--results", str(RESULTS)]))
            locks[0].__exit__(None, None, None)

    monkeypatch.setattr("time.sleep", sleep)
    assert all(execution().values())
    assert [name for name, _, _ in machine.calls] == ["teacher", "alone", "kd"]
    assert any("Alone, seed 0: waits for " in line for line in said)
    assert not any("failed" in line for line in said)


class CachingMachine(Machine):
    """One that also 'fills' caches, in which the logits of one teacher are computed once."""

    def start(self, key, words, tool="train.py"):
        if tool == "train.py":
            return super().start(key, words)
        assert tool == "precompute.py"
        args = cache_tool.build_parser().parse_args(words)
        cfg = cache_tool.build_config(args)
        self.calls.append(("fill", args.seed, args.epochs, cfg.model.teacher.checkpoint))
        self.under_way[key] = self.breaks.get("fill")

    def train(self, args):
        return args is None if not hasattr(args, "config") else super().train(args)


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
    machine = CachingMachine(room=4)
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
    machine = CachingMachine(room=2)
    machine.breaks["fill"] = "full disk"
    found, said = go(machine)
    assert all(found.values())
    (text,) = [line for line in said if "not precomputed" in line]
    assert text.endswith("see work_dirs/teacher/seed0/precompute/kd-seed0/train.log")
    machine = CachingMachine(processes=2)  # caches are filled by one process
    Path("results/runs.jsonl").unlink()
    go(machine)
    assert {call[0] for call in machine.calls} == {"teacher", "alone", "kd"}
