"""README and the pages under docs/ say what is there."""

import ast
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from commands import METRICS, METRICS_BESIDE_A_TEACHER

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text()
DOCS = sorted(PROJECT.glob("docs/*.md"))
PAGES = [
    *(PROJECT / "README.md", PROJECT / "CONTRIBUTING.md"),
    *DOCS,
    *sorted(PROJECT.glob("configs/*/README.md")),
]
# Flags of programs that are not ours.
FOREIGN = {"--logdir", "--dist"}


def name_of(page):
    return str(page.relative_to(PROJECT))


def part(page, begin, end):
    """What a page says from some words to others."""
    text = (PROJECT / "docs" / page).read_text()
    return text[text.index(begin) : text.index(end)]


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_first_command_stands_by_line_20():
    assert "```bash" in README.splitlines()[:20]


def test_readme_is_short_and_leads_to_every_page():
    assert len(README.splitlines()) <= 200
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)\)", README))
    assert linked == {name_of(page) for page in DOCS}


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


@pytest.mark.parametrize("page", DOCS, ids=name_of)
def test_python_blocks_of_docs_are_right(page, tmp_path):
    """Configs name registered classes; imports are of things that exist."""
    from mmengine.config import Config

    from mmkd_logit.registry import DATASETS, FUNCTIONS, HOOKS, METRICS, MODELS

    registries = (DATASETS, FUNCTIONS, HOOKS, METRICS, MODELS)
    for registry in registries:
        registry.import_from_location()
    known = {name for registry in registries for name in registry.module_dict}
    for number, code in enumerate(blocks("python", page.read_text())):
        for name in re.findall(r"type='mmkd_logit\.(\w+)'", code):
            assert name in known, name
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), code
        if "import" not in code:
            (tmp_path / f"block{number}.py").write_text(code)
            assert len(Config.fromfile(tmp_path / f"block{number}.py"))


def test_a_network_of_ones_own_distils_as_shown():
    """Student and teacher by the block of the page, at this alpha and at 1."""
    from mmpretrain.structures import DataSample

    text = (PROJECT / "docs/foreign-networks-and-checkpoints.md").read_text()
    (code,) = [block for block in blocks("python", text) if "class MyNet" in block]
    names = {}
    exec(code, names)
    model = names["model"]
    samples = [DataSample().set_gt_label(label) for label in range(2)]
    images = [torch.randint(256, (3, 32, 32), dtype=torch.uint8) for _ in samples]
    data = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
    losses = model(**data, mode="loss")
    sum(losses[key] for key in ("loss_ce", "loss_kd")).backward()
    assert model.net.fc.weight.grad.any()
    raw = torch.stack(images).float()
    mean, std = (torch.tensor(z).view(-1, 1, 1) for z in _IMAGENET)
    seen = model.teachers[0].model((raw - mean) / std)
    torch.testing.assert_close(model.record.teacher_logits, seen, rtol=1e-3, atol=1e-3)
    assert len(model(**data, mode="predict")) == 2


def test_a_loss_of_ones_own_trains_as_shown(tmp_path, monkeypatch):
    from mmengine.registry import MODELS

    from mmkd_logit.engine.results import describe_method
    from mmkd_logit.registry import load_config

    text = (PROJECT / "docs/foreign-networks-and-checkpoints.md").read_text()
    for name, word in (("my_losses", "class CentredHuberLoss"), ("config", "'my_losses'")):
        (code,) = [block for block in blocks("python", text) if word in block]
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    cfg = load_config(str(tmp_path / "config.py"))
    assert describe_method(cfg)["label"] == "Huber"
    loss, logits = MODELS.build(cfg.model.loss_kd), torch.tensor([[1.0, 2.0, 3.0]])
    assert loss(logits + 3, logits) == 0 < loss(2 * logits, logits)


_IMAGENET = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_pages_name_exist(page):
    text = page.read_text()
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([\w-]+))?\)", text):
        if "://" in link:
            continue
        target = page.parent / link if link else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.read_text()), f"{link}#{anchor}"
    for name in re.findall(r"\b((?:configs|tools|mmkd_logit)/[\w./-]+\.(?:py|sh|md))", text):
        assert (PROJECT / name).exists(), name


def parser_of(tool):
    """The parser of a tool, which imports ``main`` from the module that has ``build_parser``."""
    if tool in ("tools/dist_train.sh", "tools/slurm_train.sh", "tools/dist_test.sh"):
        tool = "tools/test.py" if "test" in tool else "tools/train.py"
    tree = ast.parse((PROJECT / tool).read_text())
    (source,) = [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    build = importlib.import_module(source).build_parser
    return build()


def flags_of(parser):
    inner = [choice for action in parser._actions for choice in _subparsers(action)]
    own = {flag for action in parser._actions for flag in action.option_strings}
    return own.union(*map(flags_of, inner))


def _subparsers(action):
    return action.choices.values() if isinstance(action.choices, dict) else ()


def commands_of(text):
    """The whole commands of our tools on a page, in blocks and in the middle of text."""
    spans = [line for block in blocks("bash", text) for line in block.split("\n")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(spans)).split("\n")
    joined += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    for line in joined:
        words = re.sub(r"^((\w+=\S+|python) )*(?=tools/)", "", line)
        if re.match(r"tools/\w+\.(py|sh) ", words) and "..." not in words:
            yield shlex.split(words)


def parse(tool, *words):
    """Parse a command as the tool does, which ends the program where it is wrong."""
    words = list(words)
    if tool == "tools/slurm_train.sh":  # PARTITION JOB_NAME CONFIG WORK_DIR
        words = [words[2], *words[4:]]
    elif tool.startswith("tools/dist_"):
        del words[2 if "test" in tool else 1]  # how many GPUs
    parser_of(tool).parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_parsed(page, capsys):
    for command in commands_of(page.read_text()):
        try:
            parse(*command)
        except SystemExit:
            pytest.fail(f"{shlex.join(command)}: {capsys.readouterr().err}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```bash\npython tools/train.py A.py --fats\n```\n", SystemExit),
        ("```bash\nX=1 tools/dist_train.sh \\\n    A.py 4 --epochs many\n```\n", SystemExit),
        ("say `python tools/report.py a --figure b`", SystemExit),
        ("say `tools/slurm_train.sh PARTITION`", IndexError),
        ("```bash\npython tools/no_such.py A\n```\n", FileNotFoundError),
    ],
)
def test_control_wrong_commands_are_found(text, error):
    (command,) = commands_of(text)
    with pytest.raises(error):
        parse(*command)


def test_commands_name_existing_flags():
    known = set.union(*(flags_of(parser_of(name_of(tool))) for tool in PROJECT.glob("tools/*.py")))
    for script in PROJECT.glob("tools/*.sh"):  # slurm's
        known.update(re.findall(r"(?<![\w-])--[a-z][a-z-]+", script.read_text()))
    for page in PAGES:
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]+", page.read_text()):
            assert flag in known | FOREIGN, f"{page.name}: {flag}"


def test_every_figure_and_every_metric_is_there():
    from mmkd_logit import metrics
    from mmkd_logit.lab.report.figures import FIGURES

    figures = part("experiments-and-report.md", "| `--figure` |", "## TensorBoard")
    rows = dict(re.findall(r"^\| `(\w+)`([^|]*)\|", figures, re.MULTILINE))
    assert sorted(rows) == sorted(FIGURES)
    for name, marks in rows.items():
        assert ("(w" in marks) == FIGURES[name].WORK_FOLDERS, name
        assert ("d)" in marks) == ("--dump-logits" in (FIGURES[name].NEEDS or "")), name
    named = part("metrics.md", "# Metrics", "## Logged during training")
    assert sorted(re.findall(r"^\| `(\w+)` \|", named, re.MULTILINE)) == sorted(metrics.__all__)
    keys = set(re.findall(r"`(?:\w+/)?(\w+)`", named))
    for key in METRICS | METRICS_BESIDE_A_TEACHER:
        if not key.startswith(("accuracy/", "distance/q")):  # mmpretrain's; a range is named
            assert key.split("/")[1] in keys, key


def test_every_experiment_is_there():
    begin, end = "| `python tools/reproduce.py ...`", "An experiment is"
    table = part("experiments-and-report.md", begin, end)
    names = "`".join(re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE))
    for path in PROJECT.glob("configs/paper/*.py"):
        assert path.stem in names.split("`"), path.stem


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_extras_are_the_ones_in_pyproject():
    import tomllib

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    named = {
        extra
        for page in PAGES
        for group in re.findall(r"(?<!\.)\.\[([a-z,]+)\]", page.read_text())
        for extra in group.split(",")
    }
    assert named <= set(project["optional-dependencies"])
    assert "Python 3.10 to 3.13" in README
    assert project["requires-python"] == ">=3.10,<3.14"
