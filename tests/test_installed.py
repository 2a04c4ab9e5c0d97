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

from mmkd_logit.__main__ import TOOLS
from mmkd_logit.engine.config import read_config

CONFIG = "mmkd_logit::wrn/wrn16-2_digits.py"


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


def test_the_wheel_trains_from_an_empty_folder(site, tmp_path):
    words = ["train", CONFIG, "--epochs", "1", "--work-dir", "runs"]
    code = (
        "import mmkd_logit; print(mmkd_logit.__file__); import mmkd_logit.__main__ as m; m.main()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(site))
    assert (tmp_path / "runs" / "final.pth").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


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


def test_words_are_tools():
    for word, module in TOOLS.items():
        tool = PROJECT / "tools" / f"{dict(logits='dump_logits').get(word, word)}.py"
        assert f"from {module} import main" in tool.read_text()
