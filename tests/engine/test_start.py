"""What the start of a command imports, and how it sets the allocator."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from commands import PROJECT, Tiny, folder_of, train
from mmengine.visualization import Visualizer
from mmpretrain.visualization import UniversalVisualizer

from mmkd_logit.engine.launch import keep_freed_memory
from mmkd_logit.engine.runner import QuietRunner

RUN = """
import sys
from mmkd_logit.engine.train import main
main(sys.argv[1:])
found = {"sklearn", "matplotlib", "scipy", "pandas"} & set(sys.modules)
assert not found, found
"""


def test_a_run_imports_what_it_uses_and_the_allocator_changes_no_bit(workplace, monkeypatch):
    tiny = Tiny()
    environment = dict(PYTHONPATH=f"{PROJECT}:{workplace}", MMKD_LOGIT_MALLOPT="0")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-W", "ignore", "-c", RUN, tiny.student]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    weights = [torch.load(folder_of(tiny.student) / "final.pth", weights_only=True)["state_dict"]]
    monkeypatch.delenv("MMKD_LOGIT_MALLOPT")
    train(tiny.student, "--work-dir", "again")
    weights.append(torch.load("again/final.pth", weights_only=True)["state_dict"])
    torch.testing.assert_close(*weights, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("variable", "gpu", "calls"),
    [
        (None, False, [(-4, 0), (-1, 2**31 - 1)]),
        ("1", False, [(-4, 0), (-1, 2**31 - 1)]),
        ("0", False, []),
        (None, True, []),
    ],
)
def test_freed_memory_is_kept_on_a_cpu(monkeypatch, variable, gpu, calls):
    seen = []
    library = SimpleNamespace(mallopt=lambda *words: seen.append(words))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.delenv("MMKD_LOGIT_MALLOPT", raising=False)
    if variable is not None:
        monkeypatch.setenv("MMKD_LOGIT_MALLOPT", variable)
    keep_freed_memory()
    assert seen == calls


@pytest.mark.parametrize("library", [SimpleNamespace(), None])
def test_without_glibc_nothing_changes(monkeypatch, library):
    def load(name):
        if library is None:
            raise OSError("no such library")
        return library

    monkeypatch.setattr(ctypes, "CDLL", load)
    keep_freed_memory()


@pytest.mark.parametrize("settings", [None, dict(type="mmpretrain.UniversalVisualizer")])
def test_a_figure_is_made_when_it_is_drawn_on(tmp_path, settings):
    runner = object.__new__(QuietRunner)
    runner._experiment_name, runner._log_dir = f"later{settings is None}", str(tmp_path)
    later = runner.build_visualizer(settings)
    assert isinstance(later, Visualizer if settings is None else UniversalVisualizer)
    assert "fig_save" not in vars(later)
    image = torch.arange(75, dtype=torch.uint8).reshape(5, 5, 3).numpy()
    usual = Visualizer(name="usual")
    for each in (later, usual):
        each.set_image(image)
        each.draw_bboxes(torch.tensor([1, 1, 3, 3]))
    assert later.dpi == usual.dpi
    assert (later.get_image() == usual.get_image()).all()
    with pytest.raises(AttributeError, match="has no attribute 'fig_shown'"):
        later.fig_shown  # noqa: B018
