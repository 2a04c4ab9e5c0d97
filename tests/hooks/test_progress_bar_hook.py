import io
import logging
import re
import sys

from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.registry import HOOKS
from runs import digits_student, train


class Terminal(io.StringIO):
    def isatty(self):
        return True


@HOOKS.register_module()
class Speaks(Hook):
    """Logs a line in the middle of an epoch."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.logger.error(f"iteration {runner.iter}")


def on_terminal(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)  # not in a fixture: pytest sets it once more
    return stream


def run(tmp_path, always=False, epochs=2, **kwargs):
    hooks = [dict(type="mmkd_logit.ProgressBarHook", always=always), dict(type="Speaks")]
    return train(digits_student(), tmp_path, epochs=epochs, images=32, custom_hooks=hooks, **kwargs)


def test_the_bar_on_a_terminal(tmp_path, monkeypatch):
    terminal = on_terminal(monkeypatch)
    run(tmp_path)
    text = terminal.getvalue()
    assert re.search(r"100%.*4/4", text)
    assert re.search(r"epoch 2/2, loss \d", text)
    assert text.startswith("\rtest")


def test_no_bar_elsewhere(tmp_path, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    run(tmp_path)
    assert "/4" not in stream.getvalue()
    run(tmp_path, always=True)
    assert re.search(r"100%.*4/4", stream.getvalue())


def test_no_bar_on_other_processes(tmp_path, monkeypatch):
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr("mmkd_logit.hooks.progress_bar.is_main_process", lambda: False)
    run(tmp_path)
    assert terminal.getvalue() == ""


def test_a_resumed_bar_begins_where_it_was(tmp_path, monkeypatch):
    terminal = on_terminal(monkeypatch)
    run(tmp_path, epochs=1)
    assert re.search(r"100%.*2/2", terminal.getvalue())
    run(tmp_path, epochs=2, resume=True)
    assert re.search(r"100%.*4/4", terminal.getvalue())


def test_log_lines_go_above_the_bar_and_then_back(tmp_path, monkeypatch):
    terminal = on_terminal(monkeypatch)
    console = Terminal()
    monkeypatch.setattr(sys, "stdout", console)
    runner = run(tmp_path)
    assert "iteration 0" not in console.getvalue()
    assert re.search(r"(^|[\r\n])[^\r\n]*iteration 3[^\r\n]*\n", terminal.getvalue())
    handlers = [h for h in runner.logger.handlers if type(h) is logging.StreamHandler]
    assert [handler.stream for handler in handlers] == [console]
    MMLogger.get_current_instance().error("after the run")
    assert "after the run" in console.getvalue()


def test_a_run_without_a_loss_has_a_bar_too(tmp_path, monkeypatch):
    terminal = on_terminal(monkeypatch)
    from mmkd_logit.hooks import ProgressBarHook

    after = ProgressBarHook.after_train_epoch

    def without(self, runner):
        runner.message_hub.log_scalars.pop("train/loss", None)
        after(self, runner)

    monkeypatch.setattr(ProgressBarHook, "after_train_epoch", without)
    run(tmp_path)
    assert "epoch 1/2" in terminal.getvalue()
