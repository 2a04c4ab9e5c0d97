"""Whatever MMEngine, mmpretrain or torch read in our processes runs no code."""

import hashlib
import pickle
import tarfile
import urllib.request

import mmengine
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.fileio import PickleHandler, YamlHandler
from mmengine.fileio.handlers.registry_utils import file_handlers
from mmengine.registry import DATASETS
from mmpretrain.datasets import CIFAR100
from payloads import (
    as_checkpoint,
    as_legacy_checkpoint,
    as_pickle,
    as_tar,
    as_yaml,
    read_checkpoint,
    read_pickle,
    read_yaml,
)

from mmkd_logit import checkpoint as safe_reading
from mmkd_logit.engine import install_safe_reading


@pytest.fixture
def safe():
    install_safe_reading()


def test_pickles_are_refused_and_still_written(tmp_path, marker, safe):
    for ending in ("pkl", "pickle"):
        file = tmp_path / f"annotations.{ending}"
        as_pickle(file, marker)
        with pytest.raises(ValueError, match=r"a pickle \(.pkl\) is refused, .* as JSON"):
            mmengine.load(str(file))
        with pytest.raises(ValueError, match="refused"), open(file, "rb") as opened:
            mmengine.load(opened, file_format=ending)
    mmengine.dump([1, (2, 3)], tmp_path / "predictions.pkl")
    assert pickle.loads((tmp_path / "predictions.pkl").read_bytes()) == [1, (2, 3)]


def test_yaml_is_plain(tmp_path, marker, safe):
    for ending in ("yml", "yaml"):
        file = tmp_path / f"config.{ending}"
        as_yaml(file, marker)
        with pytest.raises(ValueError, match=r"YAML is refused: .*os.mkdir"):
            mmengine.load(str(file))
        with pytest.raises(ValueError, match=r"YAML is refused: .*os.mkdir"):
            Config.fromfile(file)
    cfg = Config(dict(model=dict(type="x", sizes=(1, 2), rate=1.5, name=None)))
    cfg.dump(str(tmp_path / "own.yaml"))
    assert Config.fromfile(tmp_path / "own.yaml").to_dict() == cfg.to_dict()
    mmengine.dump(dict(a=(1, 2)), tmp_path / "own.yaml")
    if hasattr(yaml, "CSafeLoader"):  # or each config of ours takes seconds more to read
        assert issubclass(safe_reading._PlainLoader, yaml.CSafeLoader)
    assert mmengine.load(tmp_path / "own.yaml") == dict(a=(1, 2))


def test_control_mmengine_alone_runs_both(tmp_path, monkeypatch):
    for ending, handler in (("pkl", PickleHandler()), ("yaml", YamlHandler())):
        monkeypatch.setitem(file_handlers, ending, handler)
    as_pickle(tmp_path / "a.pkl", tmp_path / "of a pickle")
    mmengine.load(str(tmp_path / "a.pkl"))
    as_yaml(tmp_path / "a.yaml", tmp_path / "of yaml")
    mmengine.load(str(tmp_path / "a.yaml"))
    assert (tmp_path / "of a pickle").exists()
    assert (tmp_path / "of yaml").exists()
    for write, read in ((as_pickle, read_pickle), (as_yaml, read_yaml)):
        write(tmp_path / "b", tmp_path / write.__name__)
        read(tmp_path / "b")
        assert (tmp_path / write.__name__).exists()


@pytest.mark.parametrize("write", [as_checkpoint, as_legacy_checkpoint])
def test_torch_reads_weights_alone(tmp_path, monkeypatch, marker, write):
    """As mmpretrain's hooks call it, which say nothing."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    install_safe_reading()
    write(tmp_path / "queue.pth", marker)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "queue.pth")
    torch.save(dict(a=torch.ones(2)), tmp_path / "queue.pth")
    assert torch.load(tmp_path / "queue.pth")["a"].tolist() == [1, 1]


@pytest.mark.parametrize("write", [as_checkpoint, as_legacy_checkpoint])
def test_control_torch_runs_what_it_reads(tmp_path, write):
    write(tmp_path / "queue.pth", tmp_path / "was executed")
    read_checkpoint(tmp_path / "queue.pth")
    assert (tmp_path / "was executed").exists()


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE_NO_WEIGHTS:UserWarning")
def test_control_the_variable_makes_torch_careless(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    as_checkpoint(tmp_path / "queue.pth", tmp_path / "was executed")
    torch.load(tmp_path / "queue.pth")
    assert (tmp_path / "was executed").exists()


@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file:UserWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_torchscript_is_refused(tmp_path, safe):
    """An archive of a program, which torch 2.5 ran as it read it with weights_only=True."""
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a.pth (is refused|cannot be read)"):
        mmengine.runner.CheckpointLoader.load_checkpoint(str(tmp_path / "a.pth"))
    with pytest.raises((RuntimeError, pickle.UnpicklingError)):
        torch.load(tmp_path / "a.pth")


@pytest.fixture
def crafted(tmp_path, monkeypatch):
    """CIFAR-100 whose download is an archive with a member beside its folder."""
    (tmp_path / "served").mkdir()
    archive = tmp_path / "served" / CIFAR100.filename
    as_tar(archive, "escaped")
    monkeypatch.setattr(CIFAR100, "url", archive.as_uri())
    opened, urlopen = [], urllib.request.urlopen
    monkeypatch.setattr(
        urllib.request, "urlopen", lambda r: opened.append(urlopen(r)) or opened[-1]
    )
    yield archive
    for each in opened:  # mmpretrain does not
        each.close()


def build_cifar(root):
    return DATASETS.build(dict(type="mmpretrain.CIFAR100", data_root=str(root), pipeline=[]))


def test_an_archive_that_is_not_the_published_one(tmp_path, crafted, safe):
    with pytest.raises(RuntimeError, match="not found or corrupted"):
        build_cifar(tmp_path / "data" / "cifar100")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar100"]
    assert [path.name for path in (tmp_path / "data" / "cifar100").iterdir()] == [crafted.name]


def test_members_of_archives_do_not_escape(tmp_path, monkeypatch, crafted, safe):
    """Not even if its hash were right."""
    monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5(crafted.read_bytes()).hexdigest())
    with pytest.raises(tarfile.FilterError, match="outside the destination"):
        build_cifar(tmp_path / "data" / "cifar100")
    assert not (tmp_path / "data" / "escaped").exists()


@pytest.mark.filterwarnings("ignore:Python 3.14 will, by default, filter:DeprecationWarning")
def test_control_members_escape_elsewhere(tmp_path, monkeypatch, crafted):
    monkeypatch.setattr(CIFAR100, "tgz_md5", hashlib.md5(crafted.read_bytes()).hexdigest())
    monkeypatch.setattr(tarfile.TarFile, "extraction_filter", None)
    with pytest.raises(AssertionError, match="Download failed"):
        build_cifar(tmp_path / "data" / "cifar100")
    assert (tmp_path / "data" / "escaped").read_text() == "escaped"


def test_pickles_of_cifar(tmp_path, marker, safe):
    """mmpretrain and torchvision read them with pickle, after their hash was right."""
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test", "meta"):
        as_pickle(folder / name, marker)
    with pytest.raises(RuntimeError, match="Cannot find CIFAR100"):
        DATASETS.build(
            dict(type="mmpretrain.CIFAR100", data_root=str(tmp_path), download=False, pipeline=[])
        )
    from torchvision.datasets import CIFAR100 as Theirs  # as the benchmark's bare loop

    with pytest.raises(RuntimeError, match="not found or corrupted"):
        Theirs(str(tmp_path), download=False)


def test_control_pickles_of_cifar(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name in ("train", "test", "meta"):
        as_pickle(folder / name, tmp_path / "was executed")
    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)
    with pytest.raises((TypeError, OSError)):
        build_cifar(tmp_path)
    assert (tmp_path / "was executed").exists()
