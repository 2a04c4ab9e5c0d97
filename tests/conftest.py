import functools
import gc
import logging
import os
import types
from pathlib import Path

# Test processes that share a core wait for each other's threads: a hundred times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.utils.dl_utils import collect_env
from traces import no_trace

PROJECT = Path(__file__).resolve().parents[1]


@pytest.fixture
def project(monkeypatch):
    """The project's folder, made the current one: configs name each other from there."""
    monkeypatch.chdir(PROJECT)
    return PROJECT


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty current folder in which the project's configs and tools are visible."""
    for name in ("configs", "tools"):
        (tmp_path / name).symlink_to(PROJECT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def cifar100_root():
    root = os.environ.get("CIFAR100_ROOT")
    if not root or not Path(root, "cifar-100-python", "train").is_file():
        pytest.skip("CIFAR100_ROOT does not name a folder with cifar-100-python")
    return root


@pytest.fixture(scope="session")
def cifarn_labels():
    file = os.environ.get("CIFARN_LABELS")
    if not file or not Path(file).is_file():
        pytest.skip("CIFARN_LABELS does not name a .npz of CIFAR-N's labels")
    return file


@pytest.fixture(autouse=True, scope="session")
def _half_the_time():
    """What each of many short runs in one process would do again, and what no result depends on.

    MMEngine formats each config five times a run, collects garbage with each data set and asks
    compilers for their version; for each base of mmpretrain's that a config names it reads all of
    mmpretrain's metafiles.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, **_: (text, True))
        patch.setattr("mmengine.dataset.base_dataset.gc", types.SimpleNamespace(collect=int))
        patch.setattr("mmengine.runner.runner.collect_env", functools.cache(collect_env))
        find_base = functools.cache(Config._get_cfg_path)
        patch.setattr(Config, "_get_cfg_path", staticmethod(find_base))
        gc.collect()
        gc.freeze()
        yield
        gc.unfreeze()


@pytest.fixture(autouse=True)
def _loggers_of_earlier_tests(monkeypatch):
    """MMEngine's loggers go on writing to what pytest took for the screen, and closed since.

    A model that is built without a Runner writes to the log file of the last one, which submitit
    closes: it configures logging anew.
    """
    monkeypatch.setattr(logging, "raiseExceptions", False)
    for logger in MMLogger._instance_dict.values():
        files = [each for each in logger.handlers if isinstance(each, logging.FileHandler)]
        for each in files:
            if each.stream is None:
                logger.removeHandler(each)


@pytest.fixture
def marker(tmp_path):
    """A file that crafted input would make if its code were run."""
    path = tmp_path / "was executed"
    yield path
    assert not path.exists(), "code of the file was run"


@pytest.fixture(autouse=True)
def _no_trace():
    with no_trace():
        yield


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)
