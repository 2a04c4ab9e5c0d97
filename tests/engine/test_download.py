"""Downloads are what their names say, whole, or not kept."""

import hashlib

import pytest
import torch
from mmengine.runner import CheckpointLoader
from payloads import as_checkpoint

from mmkd_logit.engine import UnsafeCheckpointError, install_safe_checkpoint_loading


@pytest.fixture(autouse=True)
def safe_loading():
    install_safe_checkpoint_loading()


def publish(folder, stem="model", content=None, digits=8):
    """Save a checkpoint under the name that it is published by."""
    part = folder / "part"
    torch.save({"state_dict": {"weight": torch.ones(2)}} if content is None else content, part)
    digest = hashlib.sha256(part.read_bytes()).hexdigest()
    return part.rename(folder / f"{stem}-{digest[:digits]}.pth")


def kept(tmp_path):
    folder = tmp_path / "torch home" / "hub" / "checkpoints"
    return sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []


@pytest.mark.parametrize("digits", [8, 10, 64])
def test_a_right_hash_is_accepted_and_downloaded_once(served, server, asked, tmp_path, digits):
    name = publish(served, digits=digits).name
    for _ in range(2):
        assert set(CheckpointLoader.load_checkpoint(f"{server}/{name}")) == {"state_dict"}
    assert asked == [f"/{name}"]
    assert kept(tmp_path) == [name]


def test_a_wrong_hash_is_refused_and_not_kept(served, server, tmp_path):
    right = publish(served)
    name = "model-" + "0" * 8 + ".pth"
    right.rename(served / name)
    message = rf"{name} is refused: it is not the file that its name says .*expected \"0{{8}}\""
    for _ in range(2):  # not from the cache either
        with pytest.raises(ValueError, match=message):
            CheckpointLoader.load_checkpoint(f"{server}/{name}")
    assert kept(tmp_path) == []
    # The control: the file is sound, and under a name without a hash it is taken.
    (served / name).rename(served / "model.pth")
    assert CheckpointLoader.load_checkpoint(f"{server}/model.pth")


def test_a_broken_line_leaves_nothing(served, server, tmp_path):
    name = publish(served, stem="short").name
    with pytest.raises((ValueError, OSError), match=f"{name} (is refused|cannot be downloaded)"):
        CheckpointLoader.load_checkpoint(f"{server}/{name}")
    (served / name).rename(served / "short.pth")
    with pytest.raises((ValueError, OSError), match=r"short.pth.* (not kept|downloaded)"):
        CheckpointLoader.load_checkpoint(f"{server}/short.pth")
    assert kept(tmp_path) == []


def test_what_cannot_be_read_is_not_kept(served, server, tmp_path):
    (served / "page.pth").write_text("<html><body>Sign in</body></html>")
    as_checkpoint(served / "evil.pth", tmp_path / "was executed")
    with pytest.raises(ValueError, match=r"page.pth .* \(the download is not kept\)$"):
        CheckpointLoader.load_checkpoint(f"{server}/page.pth")
    with pytest.raises(UnsafeCheckpointError, match=r"evil.pth is refused.*not kept\)$"):
        CheckpointLoader.load_checkpoint(f"{server}/evil.pth")
    assert kept(tmp_path) == []
    assert not (tmp_path / "was executed").exists()


def test_what_was_in_the_cache_before_stays_there(served, server, tmp_path):
    cached = tmp_path / "torch home" / "hub" / "checkpoints" / "page.pth"
    cached.parent.mkdir(parents=True)
    cached.write_text("<html><body>Sign in</body></html>")
    with pytest.raises(ValueError, match=r"page.pth .*it was kept as .*; delete it\)$"):
        CheckpointLoader.load_checkpoint(f"{server}/page.pth")
    assert kept(tmp_path) == ["page.pth"]


def test_what_is_not_there(server):
    with pytest.raises(OSError, match=r"absent.pth cannot be downloaded: .*404"):
        CheckpointLoader.load_checkpoint(f"{server}/absent.pth")
    with pytest.raises(OSError, match="cannot be downloaded"):
        CheckpointLoader.load_checkpoint("http://127.0.0.1:9/other.pth")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://127.0.0.1:9/a/.."])
def test_addresses_without_a_file(url):
    with pytest.raises(ValueError, match="names no file to download"):
        CheckpointLoader.load_checkpoint(url)
