"""What is run, what is skipped, and what is run again."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import STUDENT

from mmkd_logit.engine.provenance import file_hash, origin_of, write_origin
from mmkd_logit.engine.results import append_line, read_lines
from mmkd_logit.engine.train import build_config, build_parser
from mmkd_logit.experiments import execute
from mmkd_logit.experiments.execute import find_row, run_missing
from mmkd_logit.experiments.exhibit import Exhibit

RESULTS = Path("results", "runs.jsonl")
CONFIG = """
train_dataloader = dict(batch_size=8)
train_cfg = dict(max_epochs=1)
optim_wrapper = dict(optimizer=dict(lr=0.1))
"""


class Machine:
    """Stands for the processes: 'trains' in no time and keeps a list of what it was told."""

    def __init__(self):
        self.calls = []
        self.breaks = {}  # config: 'before' it begins, 'cut off', or 'killed' before its row
        self.trained = 0

    def __call__(self, command, **kwargs):
        assert command[:2] == [sys.executable, str(Path("tools", "train.py"))]
        args = build_parser().parse_args(command[2:])
        self.calls.append((Path(args.config).stem, args.seed, args.resume))
        self.stdout = []
        self.status = self.train(args)
        return self

    def train(self, args):
        cfg = build_config(args)
        folder = Path(cfg.work_dir)
        how = self.breaks.get(Path(args.config).stem)
        missing = not Path(cfg.model.get("teacher", {}).get("checkpoint", __file__)).is_file()
        if how == "before" or missing:
            return 1
        folder.mkdir(parents=True, exist_ok=True)
        write_origin(folder, origin_of(cfg))
        if how == "cut off":
            return -signal.SIGKILL
        final = folder / "final.pth"
        if args.resume is None or not final.is_file():
            self.trained += 1
            final.write_text(f"weights {self.trained}")
        if how == "killed":
            return -signal.SIGKILL
        row = dict(origin_of(cfg), weights=file_hash(final))
        append_line(Path(args.results), dict(row, test={"accuracy/top1": 90.0}, train_seconds=1.0))
        return 0

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    def wait(self):
        return self.status


@pytest.fixture
def machine(workplace, monkeypatch):
    machine = Machine()
    monkeypatch.setattr(execute, "subprocess", SimpleNamespace(Popen=machine, PIPE=None))
    Path("teacher.py").write_text(CONFIG + "model = dict(type='Teacher')\n")
    Path("alone.py").write_text(CONFIG + "model = dict(type='Student')\n")
    Path("kd.py").write_text(
        CONFIG + "model = dict(type='mmkd_logit.LogitDistiller', teacher=dict(config='t.py'))\n"
    )
    Path("exhibit.py").write_text(
        "title = 'T'\n"
        "runs = dict(big=dict(label='Big', config='teacher.py'),\n"
        "            alone=dict(label='Alone', config='alone.py'),\n"
        "            kd=dict(label='Distilled', config='kd.py', teacher='big'))\n"
    )
    return machine


def go(seeds=(0,), **kwargs):
    said = []
    found = run_missing(Exhibit("exhibit.py", **kwargs), list(seeds), RESULTS, said.append)
    return {(run.name, run.seed): row for run, row in found.items()}, said


def test_everything_once(machine):
    found, said = go(seeds=(0, 1))
    assert machine.calls == [
        (name, seed, None) for seed in (0, 1) for name in ("teacher", "alone", "kd")
    ]
    assert all(found.values())
    assert len(read_lines(RESULTS)) == 6
    assert said[0].startswith("[1/6] Big, seed 0: python tools/train.py teacher.py --seed 0 ")
    assert said[1] == "[1/6] Big, seed 0: test top-1 90.00 % in 1 s"
    again, said = go(seeds=(0, 1, 2))
    assert len(machine.calls) == 9
    assert said[:6] == [
        f"[{n}/9] {label}, seed {seed}: done before"
        for n, (seed, label) in enumerate(
            [(s, name) for s in (0, 1) for name in ("Big", "Alone", "Distilled")], 1
        )
    ]
    assert {key: again[key] for key in found} == found


def test_a_failure_stops_only_what_needs_it(machine):
    machine.breaks["alone"] = "before"
    found, said = go()
    assert found[("alone", 0)] is None
    assert found[("big", 0)]
    assert found[("kd", 0)]
    assert said[3] == "[2/3] Alone, seed 0: failed, see work_dirs/alone/seed0"
    machine.breaks = {"teacher": "before"}
    with open("teacher.py", "a") as file:
        file.write("optim_wrapper = dict(optimizer=dict(lr=0.2))\n")
    found, _ = go()
    assert found[("alone", 0)]
    assert found[("big", 0)] is found[("kd", 0)] is None  # no older weights are its teacher's


def test_only_what_was_cut_off_is_resumed(machine):
    machine.breaks["teacher"] = "cut off"
    go()
    machine.breaks.clear()
    machine.calls.clear()
    go()
    assert machine.calls == [("teacher", 0, "auto"), ("kd", 0, None)]


def test_killed_between_the_weights_and_the_row(machine):
    machine.breaks["teacher"] = "killed"
    go()
    machine.breaks.clear()
    machine.calls.clear()
    trained = machine.trained
    found, _ = go()
    assert machine.calls == [("teacher", 0, "auto")]
    assert machine.trained == trained  # only its row was missing
    assert found[("kd", 0)]["teachers"] == [found[("big", 0)]["weights"]]


def test_a_changed_config_starts_anew(machine):
    machine.breaks["alone"] = "cut off"
    go()
    machine.breaks.clear()
    machine.calls.clear()
    with open("alone.py", "a") as file:
        file.write("optim_wrapper = dict(optimizer=dict(lr=0.2))\n")
    go()
    assert machine.calls == [("alone", 0, None)]  # not resumed from the older config's checkpoint
    machine.calls.clear()
    with open("alone.py", "a") as file:
        file.write("train_cfg = dict(max_epochs=2)\n")
    go()
    assert machine.calls == [("alone", 0, None)]


def test_a_changed_teacher_teaches_again(machine):
    go()
    machine.calls.clear()
    with open("teacher.py", "a") as file:
        file.write("optim_wrapper = dict(optimizer=dict(lr=0.2))\n")
    found, _ = go()
    assert machine.calls == [("teacher", 0, None), ("kd", 0, None)]
    assert found[("kd", 0)]["teachers"] == [found[("big", 0)]["weights"]]


def test_weights_that_were_lost_or_replaced(machine):
    go()
    machine.calls.clear()
    final = Path("work_dirs/alone/seed0/final.pth")
    final.unlink()
    go()
    final.write_text("of somebody's own run in this folder")
    write_origin(final.parent, dict(config_hash="another"))
    go()
    assert machine.calls == [("alone", 0, "auto"), ("alone", 0, None)]


def test_rows_of_others_do_not_count(machine):
    found, _ = go()
    run = Exhibit("exhibit.py").runs([0])[1]
    cfg = run.build_config()
    row = found[("alone", 0)]
    assert find_row(cfg, [row]) == row
    newer = dict(row, train_seconds=2)
    assert find_row(cfg, [row, newer]) == newer
    for change in (
        dict(config_hash="x"),
        dict(seed=1),
        dict(processes=8),
        dict(weights="x"),
        dict(teachers=["x"]),
    ):
        assert find_row(cfg, [{**row, **change}]) is None
    assert find_row(cfg, [{}]) is None
    assert find_row(run._replace(seed=9).build_config(), [row]) is None


def test_a_torn_results_line_is_no_reason_to_stop(machine):
    go()
    with open(RESULTS, "a") as file:
        file.write('{"config_hash": "cut o')
    machine.calls.clear()
    go(seeds=(0, 1))
    assert len(machine.calls) == 3
    assert len(read_lines(RESULTS)) == 6


def test_mistakes_are_known_before_the_first_training(machine, monkeypatch):
    kd = Path("kd.py").rename("other.py")
    with pytest.raises(FileNotFoundError, match=r"the config kd.py does not exist"):
        go()
    with pytest.raises(ValueError, match="a config has no field 'nonsense'"):
        go(options=("nonsense=1",))
    assert machine.calls == []
    Path("results").touch()
    kd.rename("kd.py")
    with pytest.raises(FileExistsError, match="results"):
        go()
    assert machine.calls == []
    exhibit = Exhibit("exhibit.py")
    monkeypatch.chdir("configs")
    with pytest.raises(FileNotFoundError, match="run from the project's folder"):
        run_missing(exhibit, [0], RESULTS, print)


def test_the_run_ends_with_us(workplace, monkeypatch):
    """Ctrl-C, or whatever happens here, leaves no training behind."""
    Path("tools").unlink()
    Path("tools").mkdir()
    Path("tools/train.py").write_text(
        "import os, time\n"
        "open('pid', 'w').write(str(os.getpid()))\n"
        "print('x - Epoch(train) [1][1/1]', flush=True)\n"
        "time.sleep(100)\n"
    )
    Path("exhibit.py").write_text(
        f"title = 'T'\nruns = dict(a=dict(label='A', config={STUDENT!r}))\n"
    )

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(execute, "print", interrupt, raising=False)
    with pytest.raises(KeyboardInterrupt):
        go()
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("pid").read_text()), 0)


def test_what_the_run_prints(workplace, capfd):
    Path("tools").unlink()
    Path("tools").mkdir()
    Path("tools/train.py").write_text(
        "import sys\n"
        "sys.stdout.buffer.write(b'noise \\xff\\n11/23 - Epoch(train) [1][1/1]\\n')\n"
        "sys.exit('error: no disk')\n"
    )
    Path("exhibit.py").write_text(
        f"title = 'T'\nruns = dict(a=dict(label='A', config={STUDENT!r}))\n"
    )
    found, _ = go()
    assert found == {("a", 0): None}
    lines = sorted(capfd.readouterr().err.splitlines())
    assert lines == ["11/23 - Epoch(train) [1][1/1]", "error: no disk"]
