from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import initialize
from mmengine.registry import TRANSFORMS
from mmengine.runner import Runner

from mmkd_logit.engine.cli import TrainingStarted, one_line_errors


def started(value=True):
    result = TrainingStarted()
    result.value = value
    return result


def fail(error, **kwargs):
    with one_line_errors(**kwargs):
        raise error


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("LOCAL_RANK", "MMKD_LOGIT_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("begun", [None, started(False), started(True)])
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("tau must\n   be positive"), "error: tau must be positive"),
        (FileNotFoundError("a.pth does not exist"), "error: a.pth does not exist"),
        (OSError(5, "Input/output error"), "error: [Errno 5] Input/output error"),
        (
            OSError(28, "No space left"),
            "error: [Errno 28] No space left; what was written before is whole. Make space, then "
            "run again",
        ),
        (ValueError("Grüße %s {} 世界"), "error: Grüße %s {} 世界"),
        (ValueError("\x1b[2Ja\x07.pth is no file"), r"error: \x1b[2Ja\x07.pth is no file"),
    ],
)
def test_the_users_errors_are_one_line(capsys, begun, error, line):
    with pytest.raises(SystemExit) as stopped:
        fail(error, started=begun)
    assert stopped.value.code == 1
    assert capsys.readouterr().err == line + "\n"


def test_a_number_too_large_is_one_line_in_training_too(capsys):
    with pytest.raises(SystemExit):
        fail(OverflowError("too large to convert"), started=started(True))
    assert capsys.readouterr().err.startswith("error: OverflowError: too large to convert (raised")


@pytest.mark.parametrize(
    "error", [KeyError("no such hook"), TypeError("got 'lrr'"), AssertionError(), ValueError()]
)
def test_others_say_where_before_training(capsys, error):
    said = error.args[0] if error.args else "raise error"  # the line that says what must hold
    for begun in (None, started(False)):
        with pytest.raises(SystemExit):
            fail(error, started=begun)
        (line,) = capsys.readouterr().err.splitlines()
        begin = f"error: {type(error).__name__}: {said} (raised in fail, test_errors.py:"
        assert line.startswith(begin)
        assert line.endswith("; MMKD_LOGIT_TRACEBACK=1 shows all)")


def test_our_defects_keep_their_traceback_while_training():
    with pytest.raises(RuntimeError, match="shapes"):
        fail(RuntimeError("shapes"), started=started())


def test_the_variable_shows_every_traceback(monkeypatch):
    monkeypatch.setenv("MMKD_LOGIT_TRACEBACK", "1")
    with pytest.raises(ValueError, match="tau"):
        fail(ValueError("tau"))


def test_only_the_first_process_speaks_of_what_all_did(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as stopped:
        fail(ValueError("tau"), started=started(False))
    assert stopped.value.code == 1
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit):  # while training it may be this one alone
        fail(OSError("disk"), started=started())
    assert capsys.readouterr().err == "error: disk\n"


def test_interruption(capsys):
    again = TrainingStarted("python tools/train.py c.py --resume")
    command = "; continue with: python tools/train.py c.py --resume"
    for begun, advice in ((None, ""), (started(), ""), (again, command)):
        with pytest.raises(SystemExit) as stopped:
            fail(KeyboardInterrupt(), started=begun)
        assert stopped.value.code == 130
        assert capsys.readouterr().err == f"\ninterrupted{advice}\n"


def test_an_interruption_that_became_another_error(capsys):
    """MMEngine's formatting of a config turns whatever happens into a SyntaxError."""

    def interrupted():
        try:
            raise KeyboardInterrupt
        except BaseException:
            raise SyntaxError("a page of config")  # noqa: B904

    with pytest.raises(SystemExit) as stopped, one_line_errors(started()):
        interrupted()
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_a_killed_loader_worker_is_named_also_while_a_config_is_formatted(capsys):
    def killed():
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
        except BaseException:
            raise SyntaxError("Failed to format the config file")  # noqa: B904

    again = started()
    again.again = "python tools/train.py c.py --resume"
    with pytest.raises(SystemExit) as stopped, one_line_errors(again):
        killed()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == (
        "error: DataLoader worker (pid 7) is killed by signal: Killed. Is memory short? Lower "
        "num_workers; continue with: python tools/train.py c.py --resume\n"
    )


def test_the_place_in_the_config_of_what_cannot_be_built(capsys):
    crop = dict(type="mmpretrain.RandomCrop", crop_size=0)
    cfg = Config(dict(data=dict(pipeline=[dict(type="mmpretrain.PackInputs"), crop])))
    with pytest.raises(SystemExit), one_line_errors():
        TRANSFORMS.build(cfg.data.pipeline[1])
    text = capsys.readouterr().err
    begin = "error: data.pipeline.1: AssertionError: assert crop_size > 0; change these settings ("
    assert text.startswith(begin)


def test_the_place_of_an_initialization_that_fails(capsys):
    normal = dict(type="Kaiming", layer="Linear", distribution="even")
    cfg = Config(dict(net=dict(head=dict(init_cfg=normal))))
    with pytest.raises(SystemExit), one_line_errors():
        initialize(torch.nn.Linear(2, 3), cfg.net.head.init_cfg)
    assert capsys.readouterr().err.startswith("error: net.head.init_cfg: AssertionError: assert d")


def test_an_error_in_a_hook_is_its_own(tmp_path, capsys):
    runner = SimpleNamespace(_hooks=[SimpleNamespace(before_train=lambda self: len(5))])
    with pytest.raises(SystemExit), one_line_errors():
        Runner.call_hook(runner, "before_train")
    assert capsys.readouterr().err.startswith(
        "error: TypeError: object of type 'int' has no len() ("
    )


def test_no_error_no_words(capsys):
    with one_line_errors():
        pass
    with pytest.raises(SystemExit) as stopped, one_line_errors():
        raise SystemExit(3)
    assert stopped.value.code == 3
    assert capsys.readouterr() == ("", "")


def test_flags_are_written_in_full(capsys):
    """What resumes a command, and records it, looks for them among its words."""
    from mmkd_logit.engine.train import build_parser

    with pytest.raises(SystemExit):
        build_parser().parse_args(["CONFIG.py", "--resum"])
    assert "unrecognized arguments: --resum; did you mean --resume?" in capsys.readouterr().err
