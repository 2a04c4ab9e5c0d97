"""No checkpoint runs code, whichever way it comes in."""

import io
import json
import os
import shutil
import subprocess
import sys
import types
import zipfile

import mmengine.runner.checkpoint as mm
import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from mmengine.utils import digit_version
from payloads import Calls
from runs import digits_student, train

from mmkd_logit.checkpoint import state_hash
from mmkd_logit.engine import UnsafeCheckpointError, install_safe_checkpoint_loading

TORCH_26 = digit_version(torch.__version__) >= digit_version("2.6.0")


def run_command(marker):
    return Calls(os.system, f"touch '{marker}'")


def save(path, content):
    torch.save({"state_dict": {"weight": torch.ones(2)}, "meta": content}, path)
    return str(path)


@pytest.fixture(autouse=True)
def safe_loading():
    install_safe_checkpoint_loading()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a genuine epoch_1.pth, of 2 iterations."""
    folder = tmp_path_factory.mktemp("trained")
    train(digits_student(), folder, epochs=1, images=32)
    return folder


@pytest.fixture
def evil(tmp_path, marker):
    return save(tmp_path / "evil.pth", run_command(marker))


def test_control_the_files_do_run_code_elsewhere(tmp_path):
    marker = tmp_path / "was executed"
    torch.load(save(tmp_path / "evil.pth", run_command(marker)), weights_only=False)
    assert marker.exists()


GETATTR_CHAINS = {
    "init": lambda: Calls(getattr, HistoryBuffer, "__init__"),
    "globals": lambda: Calls(getattr, Calls(getattr, HistoryBuffer, "__init__"), "__globals__"),
    "of a statistic": lambda: Calls(getattr, HistoryBuffer.mean, "__globals__"),
    "of os": lambda: Calls(getattr, Calls(__import__, "os"), "system"),
    "subclasses": lambda: Calls(Calls(getattr, HistoryBuffer, "__subclasses__")),
    "call a statistic": lambda: Calls(HistoryBuffer.mean, 1),
    "class": lambda: Calls(getattr, HistoryBuffer, "__class__"),
    "of a number": lambda: Calls(getattr, 1, "real"),
    "of a list": lambda: Calls(getattr, HistoryBuffer, ["mean"]),
}


@pytest.mark.parametrize("chain", GETATTR_CHAINS)
def test_getattr_leads_nowhere(tmp_path, chain):
    file = save(tmp_path / "evil.pth", GETATTR_CHAINS[chain]())
    with pytest.raises(UnsafeCheckpointError, match=r"evil.pth is refused.*Ask its author"):
        CheckpointLoader.load_checkpoint(file)


@pytest.mark.parametrize(
    "function", [os.system, subprocess.call, eval, exec, __import__, open, np.load, torch.load]
)
def test_functions_are_refused(tmp_path, marker, function):
    file = save(tmp_path / "evil.pth", Calls(function, f"open({str(marker)!r}, 'w')"))
    with pytest.raises(UnsafeCheckpointError, match=r"evil.pth is refused"):
        CheckpointLoader.load_checkpoint(file)


def test_pickled_modules_are_refused(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "module.pth")
    with pytest.raises(UnsafeCheckpointError, match=r"module.pth is refused.*Sequential"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "module.pth"))


def test_dtypes_cannot_pass_bytes_for_objects(tmp_path):
    """A dtype whose flags say that its eight bytes are a pointer."""

    class Pointer(Calls):
        def __reduce__(self):
            return np.dtype, ("f8", False, True), (3, "<", None, None, None, -1, -1, 1)

    class Array(Calls):
        def __reduce__(self):
            state = (1, (1,), Pointer(None), False, b"A" * 8)
            return np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), state

    forged = Array(None).__reduce__()[2][2].__reduce__()
    control = forged[0](*forged[1])
    control.__setstate__(forged[2])
    assert control.hasobject

    loaded = CheckpointLoader.load_checkpoint(save(tmp_path / "evil.pth", Array(None)))["meta"]
    assert loaded.dtype == float
    assert not loaded.dtype.hasobject
    for dtype in (np.dtype("O"), np.dtype("f8,O"), np.dtype("U3"), np.dtype("V8")):
        with pytest.raises(UnsafeCheckpointError):
            CheckpointLoader.load_checkpoint(save(tmp_path / "evil.pth", dtype))


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "http://",
        "https://",
        r"(\S+\:)?s3://",
        r"(\S+\:)?petrel://",
        "pavi://",
        "modelzoo://",
        "torchvision://",
        "open-mmlab://",
        "openmmlab://",
        "mmcls://",
        "other://",
    ],
)
def test_every_prefix_is_safe(tmp_path, monkeypatch, evil, served, server, prefix):
    shutil.copy(evil, served)
    CheckpointLoader._schemes["other://"] = careless  # a plugin's, of before the installation
    install_safe_checkpoint_loading()
    monkeypatch.setenv("MMENGINE_HOME", str(tmp_path))
    (tmp_path / "open_mmlab.json").write_text(json.dumps({"evil": "evil.pth"}))
    urls = {"evil": f"{server}/evil.pth"}
    monkeypatch.setattr(mm, "get_torchvision_models", lambda: urls)
    monkeypatch.setattr(mm, "get_mmcls_models", lambda: urls)
    content = (tmp_path / "evil.pth").read_bytes()
    backend = types.SimpleNamespace(get=lambda _: content)
    monkeypatch.setattr(mm, "get_file_backend", lambda *_, **__: backend)
    monkeypatch.setitem(sys.modules, "pavi", pavi_with(content))
    if prefix == "https://":  # no certificate here; the same loader
        assert CheckpointLoader._schemes[prefix] is CheckpointLoader._schemes["http://"]
        return
    name = {"": evil, "http://": f"{server}/evil.pth", "other://": f"other://{evil}"}
    scheme = prefix.removeprefix(r"(\S+\:)?")
    with pytest.raises(UnsafeCheckpointError, match="refused"):
        CheckpointLoader.load_checkpoint(name.get(prefix, f"{scheme}evil"))


def test_the_prefixes_tested_are_all():
    """The decorator above names every one that MMEngine has."""
    tested = test_every_prefix_is_safe.pytestmark[0].args[1]
    assert {*tested} == {*CheckpointLoader._schemes, "other://"}


@pytest.mark.skipif(
    not hasattr(mm, "get_torch_safe_globals") or not TORCH_26, reason="allows no getattr"
)
def test_mmengines_reader_has_no_getattr_either(tmp_path, monkeypatch):
    """Which of two globals of one name torch takes is chance."""
    seen = []
    load = torch.load

    def spy(*args, **kwargs):
        seen.append(torch.serialization.get_safe_globals())
        return load(*args, **kwargs)

    file = save(tmp_path / "good.pth", 3)
    monkeypatch.setitem(sys.modules, "pavi", pavi_with((tmp_path / "good.pth").read_bytes()))
    monkeypatch.setattr(torch, "load", spy)
    CheckpointLoader.load_checkpoint("pavi://good")
    assert len(seen) == 1
    assert getattr not in seen[0]
    mm._safe_torch_load(file)
    assert getattr in seen[1]  # the control


def careless(filename, map_location=None):
    return torch.load(filename.removeprefix("other://"), weights_only=False)


def pavi_with(content):
    class Model:
        name = "evil.pth"

        def download(self, path):
            with open(path, "wb") as file:
                file.write(content)

    modelcloud = types.SimpleNamespace(get=lambda path: Model())
    return types.SimpleNamespace(modelcloud=modelcloud)


def test_names(tmp_path, monkeypatch, served, server):
    monkeypatch.setenv("MMENGINE_HOME", str(tmp_path))
    for folder in (tmp_path, served):
        save(folder / "good.pth", 3)
    names = {"local": "good.pth", "remote": f"{server}/good.pth", "gone": "gone.pth"}
    (tmp_path / "open_mmlab.json").write_text(json.dumps(names))
    for name in ("local", "remote"):
        for scheme in ("open-mmlab", "openmmlab"):
            assert CheckpointLoader.load_checkpoint(f"{scheme}://{name}")["meta"] == 3
    with pytest.raises(FileNotFoundError, match=r"gone.pth can not be found"):
        CheckpointLoader.load_checkpoint("open-mmlab://gone")
    for scheme in ("open-mmlab", "openmmlab", "torchvision", "modelzoo", "mmcls"):
        with pytest.raises(ValueError, match=r"no 'nonesuch'$"):
            CheckpointLoader.load_checkpoint(f"{scheme}://nonesuch")


def test_mmcls_names_mean_the_backbone(monkeypatch, served, server):
    torch.save({"state_dict": {"backbone.w": torch.ones(1), "head.w": 0}}, served / "m.pth")
    monkeypatch.setattr(mm, "get_mmcls_models", lambda: {"m": f"{server}/m.pth"})
    assert list(CheckpointLoader.load_checkpoint("mmcls://m")["state_dict"]) == ["w"]


def test_damaged_files_are_named(tmp_path):
    whole = save(tmp_path / "whole.pth", np.arange(100.0))
    content = (tmp_path / "whole.pth").read_bytes()
    legacy = io.BytesIO()
    torch.save({"a": torch.ones(50)}, legacy, _use_new_zipfile_serialization=False)
    damaged = {
        "empty": b"",
        "html": b"<!doctype html><html><body>404</body></html>",
        "text": "Grüße, 世界".encode(),
        "zip": b"PK\x03\x04",
        "zeros": bytes(1000),
        "pickle": b"\x80\x02}q\x00h\x07.",  # an unknown memo
        "types": b"\x80\x02K\x01K\x02\x86q\x00s.",
        "surrogate": b"\x80\x02cbuiltins\ng\xff\n.",
        **{f"cut{n}": content[: len(content) * n // 10] for n in range(1, 10)},
        **{f"old{n}": legacy.getvalue()[: len(legacy.getvalue()) * n // 10] for n in range(1, 10)},
    }
    for name, content in damaged.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.pth (is refused|cannot be read)") as caught:
            CheckpointLoader.load_checkpoint(str(path))
        assert "\n" not in str(caught.value)
    assert CheckpointLoader.load_checkpoint(whole)["meta"].sum() == 4950
    with pytest.raises(FileNotFoundError, match=r"the checkpoint nowhere.pth does not exist"):
        CheckpointLoader.load_checkpoint("nowhere.pth")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        CheckpointLoader.load_checkpoint(str(tmp_path))


def test_paths(tmp_path, monkeypatch):
    folder = tmp_path / "mein Ordner, 模型 [1] 100%"
    folder.mkdir()
    assert CheckpointLoader.load_checkpoint(save(folder / "a b.pth", 3))["meta"] == 3
    monkeypatch.setenv("HOME", str(folder))
    assert CheckpointLoader.load_checkpoint("~/a b.pth")["meta"] == 3


def test_genuine_training_checkpoints_load(tmp_path, trained):
    loaded = CheckpointLoader.load_checkpoint(str(trained / "epoch_1.pth"))
    stock = torch.load(trained / "epoch_1.pth", weights_only=False)
    assert set(loaded) == set(stock) >= {"state_dict", "message_hub", "optimizer", "meta"}
    loss = loaded["message_hub"]["log_scalars"]["train/loss"]
    expected = stock["message_hub"]["log_scalars"]["train/loss"]
    assert type(loss) is HistoryBuffer
    assert type(loss.data[0]) is np.ndarray
    assert len(loss.data[0]) == 2
    for statistic in ("mean", "min", "max", "current"):
        assert loss.statistics(statistic) == getattr(expected, statistic)()
    for key, value in stock["state_dict"].items():
        assert torch.equal(loaded["state_dict"][key], value)
    assert loaded["meta"] == stock["meta"]
    resume = dict(load_from=str(trained / "epoch_1.pth"), resume=True)
    resumed = train(digits_student(), tmp_path, epochs=2, images=32, **resume)
    assert len(resumed.message_hub.get_scalar("train/loss").data[0]) == 4


def test_numbers_of_every_kind_load(tmp_path):
    kinds = [np.dtype(char).type for char in "?bBhHiIlLqQefdFD"]
    values = [kind(1) for kind in kinds] + [np.ones((2, 3), kind) for kind in kinds]
    values.append(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    loaded = CheckpointLoader.load_checkpoint(save(tmp_path / "numbers.pth", values))["meta"]
    for value, expected in zip(loaded, values, strict=True):
        assert isinstance(value, np.ndarray) == isinstance(expected, np.ndarray)
        assert value.dtype == expected.dtype
        assert np.array_equal(value, expected)


@pytest.mark.parametrize("options", [{}, dict(_use_new_zipfile_serialization=False)], ids=str)
def test_big_endian_arrays_are_refused_and_not_misread(tmp_path, options):
    big = np.arange(3, dtype=">f4")
    for value in (big, [">", np.ones(2, ">i8")]):
        torch.save(dict(a=value), tmp_path / "a.pth", **options)
        with pytest.raises(ValueError, match=r"a.pth cannot be read .*it holds big-endian arrays"):
            CheckpointLoader.load_checkpoint(str(tmp_path / "a.pth"))
    torch.save(dict(a=[">", None, None, None, big.astype("<f4")]), tmp_path / "a.pth", **options)
    assert CheckpointLoader.load_checkpoint(str(tmp_path / "a.pth"))["a"][4].tolist() == [0, 1, 2]


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_files_of_both_numpy_generations_load(tmp_path, module):
    save(tmp_path / "a.pth", [HistoryBuffer([1.0, 3.0], [1, 1]), np.float64(2)])
    with zipfile.ZipFile(tmp_path / "a.pth") as source:
        with zipfile.ZipFile(tmp_path / "b.pth", "w") as target:
            for item in source.infolist():
                content = source.read(item)
                for known in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
                    content = content.replace(b"c" + known, b"c" + module.encode())
                target.writestr(item, content)
    history, number = CheckpointLoader.load_checkpoint(str(tmp_path / "b.pth"))["meta"]
    assert history.mean() == number == 2


def test_files_cannot_change_statistics(tmp_path):
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    state = {
        **history.__getstate__(),
        "statistics_methods": {"mean": HistoryBuffer.max, "worst": HistoryBuffer.min},
    }

    class Poison(Calls):
        def __reduce__(self):
            return HistoryBuffer, (), state

    loaded = CheckpointLoader.load_checkpoint(save(tmp_path / "poison.pth", Poison(None)))["meta"]
    assert loaded.statistics("mean") == 2
    assert set(HistoryBuffer._statistics_methods) == {"mean", "min", "max", "current"}


def test_no_text_that_resuming_would_execute_is_kept(tmp_path):
    """What MMEngine does with it: integration/test_attacks.py."""
    file = save(tmp_path / "evil.pth", dict(config="import os", epoch=1))
    assert CheckpointLoader.load_checkpoint(file)["meta"] == dict(epoch=1)


@pytest.mark.parametrize(
    "info",
    [
        {"best_ckpt": "/home/me/thesis.pth"},
        {"best_ckpt": "/home/me/best_thesis.tex"},
        {"best_ckpt_a": "best_photos.pth"},  # a folder
        {"best_ckpt": ["best_a.pth"]},
        {"keep_ckpt_ids": ["/../../home/me/x"]},
    ],
)
def test_resuming_deletes_no_strange_files(tmp_path, monkeypatch, info):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best_photos.pth").mkdir()
    content = {"state_dict": {}, "meta": {}, "message_hub": {"runtime_info": info}}
    torch.save(content, tmp_path / "evil.pth")
    with pytest.raises(UnsafeCheckpointError, match="would delete files"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "evil.pth"))


def test_nothing_stays_changed(tmp_path, monkeypatch, evil):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    theirs = getattr(mm, "get_torch_safe_globals", None)
    before = dict(os.environ)
    good = save(tmp_path / "good.pth", 3)
    theirs_too = (os.path.join, "my.join") if TORCH_26 else os.path.join
    with torch.serialization.safe_globals([getattr, HistoryBuffer, theirs_too]):
        globals_before = set(torch.serialization.get_safe_globals())
        for file in (good, evil, save(tmp_path / "e.pth", Calls(getattr, HistoryBuffer, "x"))):
            try:
                assert CheckpointLoader.load_checkpoint(file)["meta"] == 3
                assert file == good
            except UnsafeCheckpointError:
                assert file != good
        assert set(torch.serialization.get_safe_globals()) == globals_before
    assert dict(os.environ) == before
    assert getattr(mm, "get_torch_safe_globals", None) is theirs
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    CheckpointLoader.load_checkpoint(good)
    assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "0"


def test_getattr_is_never_allowed(tmp_path, monkeypatch):
    seen = []

    def spy(filename, map_location=None):
        seen.extend(torch.serialization.get_safe_globals())
        return {}

    CheckpointLoader._schemes["spy://"] = spy
    install_safe_checkpoint_loading()
    with torch.serialization.safe_globals([getattr, os.path.join]):
        CheckpointLoader.load_checkpoint("spy://")
    assert seen
    assert getattr not in seen
    assert os.path.join in seen  # what the user allowed stays allowed


def test_installing_twice_is_harmless(tmp_path):
    before = dict(CheckpointLoader._schemes)
    install_safe_checkpoint_loading()
    assert dict(CheckpointLoader._schemes) == before
    assert list(CheckpointLoader._schemes)[-1] == ""  # the shortest prefix is tried last


def test_the_hash_of_weights_stays():
    """Fingerprints and caches of earlier versions hold it."""
    state = {"b.weight": torch.arange(6.0).reshape(2, 3).t(), "a": torch.tensor(7), "c": dict(x=1)}
    expected = "de9f3baada38267b81b87a538b848625f0b9583ca3b40b41026ecf8c987cd16c"
    assert state_hash(state) == expected
    state["b.weight"] = state["b.weight"].contiguous()
    assert state_hash(state) == expected
    assert state_hash({**state, "a": torch.tensor(8)}) != expected
