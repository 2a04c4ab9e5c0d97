"""Whoever reads a file of somebody else's is listed here, with the attack on it that fails.

A call that parses a file, or runs text, and is not in ``READERS`` fails these tests: write an
attack on it (see integration/test_attacks.py) and name it here.
"""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
from commands import PROJECT

FOLDERS = ("mmkd_logit", "tools")

# Whole modules whose every call is a matter of reading, but for those that write or only check.
_PARSERS = {"pickle", "_pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "submitit"}
_PARSERS |= {"yaml", "json", "csv", "tomllib", "plistlib", "configparser", "xml", "sqlite3", "h5py"}
_PARSERS |= {"tarfile", "zipfile", "gzip", "bz2", "lzma", "pandas", "runpy", "code", "codeop"}
_WRITES = re.compile(r"dumps?|writer|DictWriter|BadZipFile|ZipInfo|\w*Error|[A-Z_]+|data_filter")
# Of these, what reads.
_READ = re.compile(
    r"(torch|torchvision|numpy|scipy|mmengine|mmpretrain|mmcv|shutil|importlib|ctypes|PIL|cv2)\."
    r"([\w.]+\.)?(load|loads|load_url|fromfile|fromstring|from_file|fromregex|genfromtxt|loadtxt|"
    r"memmap|open_memmap|read_array|CDLL|load_checkpoint|_load_checkpoint|get_config|get_model|"
    r"load_state_dict_from_url|download_url_to_file|load_from_\w+|list_from_file|dict_from_file|"
    r"get|get_text|get_local_path|imread|open|unpack_archive|import_module|exec_module|loadmat|"
    r"CIFAR10|CIFAR100|ModelHub\.get|compile_fx|_load_with_prefix|jit\.load|init_model)"
)
_BUILTINS = {"eval", "exec", "compile", "__import__", "breakpoint", "input"}
_NOT_FILES = {"mmpretrain.registry.DATASETS.get", "mmengine.registry.HOOKS.get"}
_NOT_FILES |= {"mmpretrain.registry.DATA_SAMPLERS.get"}

PLAIN = "JSON, or a ZIP of ours that is written: data, whatever it holds"
NUMBERS = "bytes of numbers, which this run has written"
CONFIG = "a config is a program, and is trusted as one; its YAML is plain"
NAMED = "imports what our own code names"
CHECKPOINT = "integration/test_attacks.py::test_pickles_in_checkpoints"
OTHER = "integration/test_attacks.py::test_other_files"
ROWS = "integration/test_attacks.py::test_dumps_rows_scalars_and_origins"
SAFE = "engine/test_safe_reading.py::"
PREFIXES = "engine/test_checkpoint.py::test_every_prefix_is_safe"

READERS = {
    ("mmkd_logit/utils/files.py", "zipfile.ZipFile"): PLAIN,
    ("mmkd_logit/lab/report/data.py", "json.loads"): OTHER,
    ("mmkd_logit/lab/report/data.py", "numpy.load"): ROWS,
    ("mmkd_logit/datasets/wrapper.py", "mmpretrain.datasets.CIFAR10"): (
        SAFE + "test_pickles_of_cifar"
    ),
    ("mmkd_logit/checkpoint.py", "zipfile.is_zipfile"): PLAIN,
    ("mmkd_logit/checkpoint.py", "zipfile.ZipFile"): CHECKPOINT,
    ("mmkd_logit/registry.py", "importlib.import_module"): CONFIG,
    ("mmkd_logit/engine/logits.py", "json.loads"): ROWS,
    ("mmkd_logit/engine/logits.py", "numpy.load"): ROWS,
    ("mmkd_logit/engine/logits.py", "mmengine.runner.CheckpointLoader.load_checkpoint"): (
        CHECKPOINT
    ),
    ("mmkd_logit/engine/fingerprint.py", "json.loads"): ROWS,
    ("mmkd_logit/datasets/label_noise.py", "numpy.load"): OTHER,
    ("mmkd_logit/datasets/label_noise.py", "torch.load"): OTHER,
    ("mmkd_logit/checkpoint.py", "mmengine.runner.checkpoint.load_from_http"): PREFIXES,
    ("mmkd_logit/checkpoint.py", "mmengine.runner.checkpoint.load_from_local"): PREFIXES,
    ("mmkd_logit/checkpoint.py", "torch.load"): CHECKPOINT,
    ("mmkd_logit/checkpoint.py", "numpy.memmap"): NUMBERS,  # a type to compare with
    ("mmkd_logit/registry.py", "mmengine.config.Config.fromfile"): CONFIG,
    ("mmkd_logit/registry.py", "mmengine.hub.get_config"): CONFIG,
    ("mmkd_logit/__main__.py", "importlib.import_module"): NAMED,
    ("mmkd_logit/datasets/digits.py", "numpy.loadtxt"): "numbers in a file of scikit-learn's wheel",
    ("mmkd_logit/checkpoint.py", "torch.hub.download_url_to_file"): (
        "engine/test_download.py::test_a_wrong_hash_is_refused_and_not_kept"
    ),
    ("mmkd_logit/engine/results.py", "json.loads"): ROWS,
    ("mmkd_logit/engine/lock.py", "json.loads"): PLAIN,
    ("mmkd_logit/lab/publish.py", "json.loads"): PLAIN,
    ("mmkd_logit/checkpoint.py", "tarfile.TarFile"): (
        SAFE + "test_members_of_archives_do_not_escape"
    ),
    ("mmkd_logit/checkpoint.py", "yaml.SafeLoader"): SAFE + "test_yaml_is_plain",
    ("mmkd_logit/engine/group.py", "json.loads"): PLAIN,
    ("mmkd_logit/engine/group.py", "mmengine.runner.CheckpointLoader.load_checkpoint"): (
        CHECKPOINT
    ),
    (
        "mmkd_logit/engine/test.py",
        "mmengine.runner.checkpoint.CheckpointLoader.load_checkpoint",
    ): CHECKPOINT,
    ("mmkd_logit/lab/_preload.py", "importlib.import_module"): NAMED,
    ("mmkd_logit/lab/worker.py", "importlib.import_module"): NAMED,
    ("mmkd_logit/lab/experiment.py", "mmengine.config.Config.fromfile"): CONFIG,
    ("mmkd_logit/lab/pools.py", "submitit.AutoExecutor"): (
        "integration/test_attacks.py::test_submitit_reads_nobody_elses_pickles"
    ),
    ("mmkd_logit/engine/launch.py", "ctypes.CDLL"): NAMED,
    ("mmkd_logit/lab/worker.py", "submitit.helpers.DelayedSubmission"): (
        "integration/test_attacks.py::test_submitit_reads_nobody_elses_pickles"
    ),
    ("mmkd_logit/engine/preflight.py", "mmengine.runner.CheckpointLoader.load_checkpoint"): (
        CHECKPOINT
    ),
    ("mmkd_logit/losses/feature.py", "importlib.import_module"): NAMED,
    ("mmkd_logit/metrics/export.py", "numpy.memmap"): NUMBERS,
    ("mmkd_logit/models/teacher.py", "mmengine.runner.CheckpointLoader.load_checkpoint"): (
        CHECKPOINT
    ),
    ("mmkd_logit/models/teacher.py", "mmpretrain.apis.ModelHub.get"): CONFIG,
}


def names_of(tree):
    """What imported names stand for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                names[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def calls_of(text):
    """The whole names of what a module calls, or hands on to be called."""
    tree = ast.parse(text)
    names = names_of(tree)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(node.func.id)
        if isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, ast.Load):
            first, dot, rest = ast.unparse(node).partition(".")
            if first in names and re.fullmatch(r"[\w.]*", rest):
                found.add(names[first] + dot + rest)
    return found


def readers_of(text):
    found = set()
    for name in calls_of(text):
        module, _, called = name.partition(".")
        parser = module in _PARSERS and called and not _WRITES.fullmatch(called.split(".")[-1])
        if parser or name in _BUILTINS or (_READ.fullmatch(name) and name not in _NOT_FILES):
            found.add(name)
    return found


def modules():
    return sorted(path for folder in FOLDERS for path in (PROJECT / folder).rglob("*.py"))


def test_every_reader_is_known():
    found = {
        (path.relative_to(PROJECT).as_posix(), name)
        for path in modules()
        for name in readers_of(path.read_text())
    }
    new, gone = found - READERS.keys(), READERS.keys() - found
    assert not new, f"new readers of files; attack them and name the attack in READERS: {new}"
    assert not gone, f"these readers are gone; take them out of READERS: {gone}"


@pytest.mark.parametrize("attack", sorted({v for v in READERS.values() if "::" in v}))
def test_every_attack_is_there(attack):
    path, _, name = attack.partition("::")
    tree = ast.parse(Path(PROJECT, "tests", path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(
    ("text", "reader"),
    [
        ("import pickle\npickle.load(f)", "pickle.load"),
        ("from pickle import loads as read\nread(f)", "pickle.loads"),
        ("import pickle as p\nclass A(p.Unpickler): pass", "pickle.Unpickler"),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", "numpy.load"),
        ("import numpy\nnumpy.lib.format.open_memmap(f)", "numpy.lib.format.open_memmap"),
        ("import torch\nmap(torch.load, files)", "torch.load"),
        ("import torch\ntorch.jit.load(f)", "torch.jit.load"),
        ("import torch.hub\ntorch.hub.load('a', 'b')", "torch.hub.load"),
        ("from torch.hub import load_state_dict_from_url as g\ng(u)", None),
        ("import mmengine\nmmengine.load(f)", "mmengine.load"),
        ("from mmengine.fileio import load\nload(f)", "mmengine.fileio.load"),
        ("from mmengine import Config\nConfig.fromstring(t, '.py')", "mmengine.Config.fromstring"),
        ("import yaml\nyaml.full_load(f)", "yaml.full_load"),
        ("import tarfile\ntarfile.open(f)", "tarfile.open"),
        ("import shutil\nshutil.unpack_archive(f)", "shutil.unpack_archive"),
        ("eval(text)", "eval"),
        ("exec(text)", "exec"),
        ("import importlib\nimportlib.import_module(n)", "importlib.import_module"),
        ("import runpy\nrunpy.run_path(f)", "runpy.run_path"),
        ("import joblib\njoblib.load(f)", "joblib.load"),
        ("def f():\n    import dill\n    dill.load(f)", "dill.load"),
    ],
)
def test_control_readers_are_found(text, reader):
    expected = reader or "torch.hub.load_state_dict_from_url"
    assert expected in readers_of(text)


def test_control_what_reads_nothing():
    text = "import json, re, torch\njson.dumps(a)\nre.compile(b)\nmodel.eval()"
    assert readers_of(text) == set()


# What mmengine and mmpretrain read with pickle, or run, beside torch.load without a word (weights
# alone) and mmengine.load (JSON and plain YAML): file -> why no file of a user's gets there.
THEIRS = {
    "mmengine/config/config.py": "configs, which are programs; never a checkpoint's text",
    "mmengine/dist/dist.py": "what processes of one run send each other",
    "mmengine/dataset/base_dataset.py": "its own list of samples, in memory",
    "mmengine/fileio/handlers/pickle_handler.py": "replaced; engine/test_safe_reading.py",
    "mmengine/fileio/handlers/yaml_handler.py": "replaced; engine/test_safe_reading.py",
    "mmengine/runner/checkpoint.py": "its loaders are replaced; engine/test_checkpoint.py",
    "mmengine/utils/dl_utils/hub.py": "of Parrots, which is not PyTorch",
    "mmpretrain/datasets/cifar.py": "after the MD5 was right; engine/test_safe_reading.py",
    "mmpretrain/datasets/utils.py": "archives, within their folder; engine/test_safe_reading.py",
    "mmpretrain/datasets/transforms/processing.py": "eval of a config's name of a dtype",
    "mmpretrain/models/multimodal/ram/ram.py": "files of its own package",
}
_THEIRS = re.compile(
    r"(pickle|dill|joblib|marshal)\.(loads?|Unpickler)|(builtins\.)?(eval|exec)|yaml\.(unsafe_|full_)?"
    r"load(_all)?|.*\.(extractall|unpack_archive)|extractall"
)


_WORDS = re.compile(r"pickle|weights_only|\beval\(|\bexec\(|yaml|extractall|unpack_archive")


def dangerous(text):
    tree = ast.parse(text)
    names = names_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            name = names.get(first, first) + dot + rest
            if _THEIRS.fullmatch(name) and not name.endswith("model.eval"):
                yield name
            for keyword in node.keywords:
                careful = dict(allow_pickle="False", weights_only="True").get(keyword.arg)
                if careful and ast.unparse(keyword.value) != careful:
                    yield name


def test_readers_of_the_stack_are_known():
    found = set()
    for package in ("mmengine", "mmpretrain"):
        (folder,) = importlib.util.find_spec(package).submodule_search_locations
        for path in Path(folder).rglob("*.py"):
            name = path.relative_to(Path(folder).parent).as_posix()
            text = path.read_text()
            if _WORDS.search(text) and "/.mim/" not in name and any(dangerous(text)):
                found.add(name)
    assert "mmpretrain/datasets/cifar.py" in found
    assert found <= THEIRS.keys(), found - THEIRS.keys()


def test_every_command_line_reads_safely():
    """Each installs the safe readers first; the report knows nothing of MMEngine."""
    checked = set()
    for tool in (PROJECT / "tools").glob("*.py"):
        (module,) = re.findall(r"^from (mmkd_logit[\w.]*) import main$", tool.read_text(), re.M)
        text = Path(PROJECT, *module.split(".")).with_suffix(".py").read_text()
        if module.startswith("mmkd_logit.lab.report."):
            others = {name for name in calls_of(text) if name.startswith(("mm", "torch"))}
            ours = ("mmkd_logit.lab.report", "mmkd_logit.utils.files.write")
            ours += ("mmkd_logit.utils.arguments.check_out_f", "mmkd_logit.utils.cli.OneLineParser")
            assert not {name for name in others if not name.startswith(ours)}
            continue
        assert "with running_tool(" in text, f"{module} does not read safely"
        checked.add(tool.stem)
    assert {"train", "test", "dump_logits", "precompute", "train_group", "reproduce"} <= checked
