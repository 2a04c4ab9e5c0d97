"""The package away from its checkout: the wheel alone, and names of configs in it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from commands import PROJECT
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain import get_model

from mmkd_logit.checkpoint import state_hash
from mmkd_logit.engine.config import read_config
from mmkd_logit.engine.fingerprint import weights_hash
from mmkd_logit.engine.train import main
from mmkd_logit.utils.cli import TOOLS, program

CONFIG = "mmkd_logit::wrn/wrn16-2_digits.py"
KD = "mmkd_logit::kd/wrn16-2_wrn10-1-thin_mse_digits.py"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """What pip makes of the wheel, in a folder of its own."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("mmkd_logit", "configs", "tools"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "model-index.yml"):
        shutil.copy(PROJECT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", str(site), str(source)], check=True)
    (wheel,) = site.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


FEW = {f"{split}_dataloader.dataset.dataset.indices": 64 for split in ("train", "test")}
SHORT = ["--epochs", "1", "--no-validate", "--cfg-options", *(f"{k}={v}" for k, v in FEW.items())]
FINALS = [f"work_dirs/{name.stem}/seed0/final.pth" for name in map(Path, (CONFIG, KD))]


def test_the_wheel_trains_from_an_empty_folder(site, tmp_path):
    """A teacher, and then its student."""
    code = (
        "import sys, mmkd_logit; print(mmkd_logit.__file__); import mmkd_logit.__main__ as m\n"
        f"for config in ({CONFIG!r}, {KD!r}):\n"
        f"    sys.argv = ['mmkd-logit', 'train', config, *{SHORT!r}]; m.main()\n"
        "from mmkd_logit.utils.cli import program; print(program('train_group.py'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert done.stdout.rstrip().endswith("['mmkd-logit', 'group']")
    assert all(tmp_path.joinpath(final).is_file() for final in FINALS)
    assert [path.name for path in tmp_path.iterdir()] == ["work_dirs"]


def test_the_wheel_holds_what_the_checkout_holds(site):
    mim = site / "mmkd_logit" / ".mim"
    for folder in ("configs", "tools"):
        held = {path.relative_to(mim) for path in (mim / folder).rglob("*") if path.is_file()}
        wanted = [path for path in (PROJECT / folder).rglob("*") if path.is_file()]
        assert held == {p.relative_to(PROJECT) for p in wanted if "__pycache__" not in p.parts}
    index = yaml.safe_load((mim / "model-index.yml").read_text())["Import"]
    assert sorted(index) == sorted(
        str(path.relative_to(PROJECT)) for path in PROJECT.glob("configs/*/metafile.yml")
    )


def test_a_config_of_another_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(f"_base_ = {CONFIG!r}\ntrain_cfg = dict(max_epochs=3)\n")
    mine, ours = read_config("mine.py"), read_config(CONFIG)
    assert mine.train_cfg.max_epochs == 3
    assert mine.model.backbone.type == ours.model.backbone.type == "mmkd_logit.WideResNetCIFAR"
    with pytest.raises(FileNotFoundError, match=r"mmkd_logit has no config mmkd_logit::kd/no\.py"):
        read_config("mmkd_logit::kd/no.py")


def test_a_distilling_config_of_another_project(tmp_path, monkeypatch):
    """Built, stepped by a plain Runner, and read by mmpretrain, where nothing of ours lies."""
    monkeypatch.chdir(tmp_path)
    main([CONFIG, *SHORT])
    Path("lab").mkdir()
    Path("lab/mine.py").write_text(f"_base_ = {KD!r}\nmodel = dict(alpha=0.5)\n")
    cfg = Config.fromfile("lab/mine.py")
    off = dict.fromkeys(("val_cfg", "val_dataloader", "val_evaluator"))
    cfg.merge_from_dict({**FEW, **off, "train_cfg.max_epochs": 1, "work_dir": "plain"})
    Runner.from_cfg(cfg).train()
    assert Path("plain/final.pth").is_file()
    dumped = Path("plain/mine.py").read_text()
    assert CONFIG in dumped
    assert not any(folder in dumped for folder in (str(tmp_path), str(PROJECT)))
    model = get_model(cfg, pretrained="plain/final.pth")
    assert model.alpha == 0.5
    (teacher,) = model.teachers
    assert weights_hash(FINALS[0]) == state_hash(teacher.model.state_dict())


def test_words_are_tools():
    for tool, (module, _) in TOOLS.items():
        assert f"from {module} import main" in (PROJECT / "tools" / tool).read_text()
        assert program(tool) == ["python", f"tools/{tool}"]
