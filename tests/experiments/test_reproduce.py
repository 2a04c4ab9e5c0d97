"""tools/reproduce.py, with real trainings of a second."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from commands import PROJECT, Tiny, error_of, train_tool

from mmkd_logit.engine.results import read_lines
from mmkd_logit.experiments import execute
from mmkd_logit.experiments.reproduce import main

# MMEngine names a run by config and second, and here two runs of one config may share a second.
pytestmark = pytest.mark.filterwarnings("ignore:.* instance named of:UserWarning")


class InThisProcess:
    """Runs tools/train.py without starting Python anew."""

    def __init__(self, command, **kwargs):
        self.stdout, self.status = [], 0
        try:
            train_tool.main(command[2:])
        except SystemExit as stopped:
            self.status = stopped.code

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    def wait(self):
        return self.status


@pytest.fixture
def tiny(workplace):
    tiny = Tiny()
    Path("configs").unlink()
    for name in ("wrn", "kd", "_base_"):
        Path("configs").mkdir(exist_ok=True)
        Path("configs", name).symlink_to(PROJECT / "configs" / name)
    Path("configs/paper").mkdir()
    Path("configs/paper/small.py").write_text(
        "title = 'Small'\n"
        f"runs = dict(big=dict(label='Teacher', config={tiny.teacher!r}),\n"
        f"            alone=dict(label='Alone', config={tiny.student!r}),\n"
        f"            kd=dict(label='Distilled', config={tiny.kd!r}, teacher='big'))\n"
        "comparisons = [('kd', 'alone')]\n"
    )
    return tiny


def test_from_nothing_to_the_table(tiny, capsys, monkeypatch):
    monkeypatch.setattr(execute, "subprocess", SimpleNamespace(Popen=InThisProcess, PIPE=None))
    main(["small", "--seeds", "2"])
    first = capsys.readouterr()
    table = first.out[first.out.index("### Small") :]
    rows = read_lines(Path("results/small/runs.jsonl"))
    assert len(rows) == 6
    assert "| Distilled | " in table
    assert "(paired t-test over 2 seeds)" in table
    teachers = {row["seed"]: row["weights"] for row in rows if row["config"] == tiny.teacher}
    for row in rows:
        assert row["teachers"] == ([teachers[row["seed"]]] if row["config"] == tiny.kd else [])
    main(["small", "--seeds", "2"])
    second = capsys.readouterr()
    assert second.out == table
    assert second.err.count("done before") == 6


def test_failures_and_reduced_size(tiny, capsys, monkeypatch):
    monkeypatch.setattr(execute, "subprocess", SimpleNamespace(Popen=InThisProcess, PIPE=None))
    with pytest.raises(SystemExit) as stopped:
        main(["small", "--cfg-options", "model.nonsense=1"])
    assert stopped.value.code == 1
    out = capsys.readouterr().out
    assert "| Distilled | - | 0 (1 failed) |" in out
    assert out.endswith("Nothing finished.\n")


def test_in_a_process_of_its_own(tiny, capsys, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))  # also where we are not installed
    Path("configs/paper/small.py").write_text(
        f"title = 'Small'\nruns = dict(one=dict(label='One', config={tiny.student!r}))\n"
    )
    main(["small", "--cfg-options", "optim_wrapper.optimizer.lr=0.01"])
    out, err = capsys.readouterr()
    assert "| One | " in out
    assert out.endswith("Reduced: optim_wrapper.optimizer.lr=0.01.\n")
    assert " Epoch(train) [1][2/2]" in err
    (row,) = read_lines(Path("results/small/runs.jsonl"))
    assert row["iterations"] == 2
    assert row["overrides"] == {"optim_wrapper.optimizer.lr": 0.01}


def test_wrong_words(workplace, capsys):
    message = error_of(capsys, main, "nope")
    assert message == (
        "no exhibit 'nope' in configs/paper (known: digits); run from the project's folder"
    )
    assert error_of(capsys, main, "digits", "--seeds", 0) == "--seeds must be at least 1, got 0"
    Path("results").touch()
    assert "'results" in error_of(capsys, main, "digits")
    Path("configs").unlink()
    assert "none here" in error_of(capsys, main, "digits")


@pytest.mark.parametrize("tool", ["train", "test", "reproduce"])
def test_the_tools_call_us(tool):
    text = (PROJECT / "tools" / f"{tool}.py").read_text()
    compile(text, tool, "exec")
    package = "experiments" if tool == "reproduce" else "engine"
    assert f"from mmkd_logit.{package}.{tool} import main" in text
