"""README says what is there."""

import re
import sys
from pathlib import Path

import pytest
from commands import METRICS, METRICS_BESIDE_A_TEACHER

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text()
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *PROJECT.glob("configs/*/README.md")]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_first_command_stands_by_line_20():
    assert "```bash" in README.splitlines()[:20]


def test_python_block_runs():
    (code,) = [block for block in blocks("python") if "import torch" in block]
    names = {}
    exec(code, names)
    assert names["student"].grad.abs().sum() > 0


def test_config_block_is_the_tested_one(tmp_path):
    from mmengine.config import Config

    (code,) = [block for block in blocks("python") if "_base_" in block]
    (tmp_path / "child.py").write_text(code)
    cfg = Config.fromfile(tmp_path / "child.py")
    assert cfg.model.type == "mmkd_logit.LogitDistiller"
    assert cfg.model.student.backbone.type == "ResNet_CIFAR"
    assert cfg.train_dataloader.dataset.type == "CIFAR10"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_files_that_pages_name_exist(page):
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    named = re.findall(r"\b((?:configs|tools|mmkd_logit)/[\w./-]+\.(?:py|sh|md))", text)
    for link in links:
        assert (page.parent / link).exists(), link
    for name in named:
        assert (PROJECT / name).exists(), name


def test_commands_name_existing_flags():
    from mmkd_logit.engine.logits import build_parser as dump_parser
    from mmkd_logit.engine.test import build_parser as test_parser
    from mmkd_logit.engine.train import build_parser as train_parser
    from mmkd_logit.lab.publish import build_parser as publish_parser
    from mmkd_logit.lab.report.command import build_parser as figure_parser
    from mmkd_logit.lab.report.page import build_parser as report_parser
    from mmkd_logit.lab.reproduce import build_parser as reproduce_parser

    parsers = (train_parser, test_parser, publish_parser, reproduce_parser, dump_parser)
    known = "".join(parser().format_help() for parser in (*parsers, report_parser))
    known += figure_parser("grid").format_help()
    for page in PAGES:
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text()):
            if flag not in ("--losses", "--check", "--logdir"):
                assert flag in known, f"{page.name}: {flag}"


def test_every_figure_and_every_metric_is_there():
    from mmkd_logit import metrics
    from mmkd_logit.lab.report.command import FIGURES

    figures = README[README.index("`python tools/analysis/...`") : README.index("TensorBoard")]
    rows = re.findall(r"^\| `(\w+)\.py[ `]", figures, re.MULTILINE)
    assert sorted(rows) == sorted(FIGURES)
    named = README[README.index("## Metrics") : README.index("## ImageNet")]
    assert sorted(re.findall(r"^\| `(\w+)` \|", named, re.MULTILINE)) == sorted(metrics.__all__)
    keys = set(re.findall(r"`(?:\w+/)?(\w+)`", named))
    for key in METRICS | METRICS_BESIDE_A_TEACHER:
        if not key.startswith(("accuracy/", "distance/q")):  # mmpretrain's; a range is named
            assert key.split("/")[1] in keys, key


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_extras_are_the_ones_in_pyproject():
    import tomllib

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    named = set(re.findall(r"\.\[([\w,]+)\]", README))
    assert {extra for group in named for extra in group.split(",")} <= set(
        project["optional-dependencies"]
    )
    assert "Python 3.10 to 3.13" in README
    assert project["requires-python"] == ">=3.10,<3.14"
