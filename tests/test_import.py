"""Importing the package: what it needs, and what it leaves alone."""

import subprocess
import sys

import pytest
from commands import PROJECT

STACK = ("mmengine", "mmcv", "mmpretrain")

HIDE = """
import sys

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hide())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in sys.argv[1:] else find_spec(name, *a)
import mmkd_logit
"""


def run(code, *words):
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=PROJECT
    )


@pytest.mark.parametrize("absent", [STACK, *((name,) for name in STACK)])
def test_what_is_missing_is_named_with_both_remedies(absent):
    done = run(HIDE, *absent)
    assert done.returncode == 1
    error = done.stderr[done.stderr.index("ImportError: ") :]
    assert error.startswith(f"ImportError: mmkd_logit needs {', '.join(absent)}. Install one of")
    assert "pip install 'mmkd-logit[onedl]'" in error
    assert "pip install 'mmkd-logit[openmmlab]'" in error
    assert "never both" in error


def test_control_nothing_missing():
    assert run(HIDE).returncode == 0


def test_import_is_light_and_changes_nothing():
    code = """
import sys
import mmkd_logit
assert not {"torch", "mmengine", "mmpretrain", "mmcv", "sklearn", "scipy"} & set(sys.modules)
from mmengine.runner import CheckpointLoader
import os, torch, torch._dynamo, torch.distributed.tensor  # these two add classes of torch's own
schemes, environment = dict(CheckpointLoader._schemes), dict(os.environ)
safe = set(torch.serialization.get_safe_globals())
import mmkd_logit.engine, mmkd_logit.lab, mmkd_logit.registry
import mmkd_logit.engine.train, mmkd_logit.engine.test, mmkd_logit.engine.logits
import mmkd_logit.lab.reproduce, mmkd_logit.lab.publish, mmkd_logit.hooks
assert "mmpretrain.models" not in sys.modules  # it takes seconds and warns
assert dict(CheckpointLoader._schemes) == schemes
assert set(torch.serialization.get_safe_globals()) == safe
assert dict(os.environ) == environment
mmkd_logit.engine.install_safe_checkpoint_loading()
assert dict(CheckpointLoader._schemes) != schemes
import mmkd_logit.losses, mmkd_logit.models, mmkd_logit.datasets, mmkd_logit.hooks
assert "sklearn" not in sys.modules  # before digits are read
"""
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""  # it is for tables; mmpretrain.datasets prints a line to it
    assert "OneDL" not in done.stderr
