"""Labels from files that may be anybody's."""

import os

import numpy as np
import pytest
import torch
from payloads import Calls

from mmkd_logit.datasets import LabelNoise
from mmkd_logit.datasets.label_noise import read_arrays, read_labels

CLEAN = np.arange(20) % 5
NOISY = (CLEAN + (np.arange(20) < 6)) % 5
PUBLISHED = dict(clean_label=CLEAN, noisy_label=NOISY, noisy_coarse_label=NOISY // 2)


def apply(file, **settings):
    return LabelNoise("file", file=str(file), **settings).apply(CLEAN, 5)


def write(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        torch.save(arrays, path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64, np.float64])
def test_npy(tmp_path, dtype):
    np.save(tmp_path / "labels.npy", NOISY.astype(dtype))
    labels = apply(tmp_path / "labels.npy")
    assert labels.dtype == np.int64
    assert (labels == NOISY).all()


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".pth"])
def test_named_arrays_as_published(tmp_path, suffix):
    file = write(tmp_path / f"CIFAR-100_human{suffix}", PUBLISHED)
    assert (apply(file, key="noisy_label") == NOISY).all()
    assert (apply(file, key="clean_label") == CLEAN).all()
    with pytest.raises(
        ValueError, match="has no array 'nosy'; it has clean_label, noisy_label, no"
    ):
        apply(file, key="nosy")
    with pytest.raises(ValueError, match=r"holds clean_label, noisy_label, .* say which with key="):
        apply(file)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        torch.from_numpy(NOISY),
        torch.from_numpy(NOISY).float(),
        torch.from_numpy(NOISY).bfloat16(),
        NOISY.astype(np.uint8),
        NOISY.tolist(),
        dict(labels=torch.from_numpy(NOISY)[:, None]),
        dict(labels=NOISY, clean_label=CLEAN),
        dict(labels=NOISY, note="by hand"),
    ],
)
def test_pt(tmp_path, content, legacy):
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    assert (apply(tmp_path / "a.pt") == NOISY).all()


def test_other_clean_labels_are_another_order(tmp_path):
    file = write(tmp_path / "a.npz", dict(PUBLISHED, mine=CLEAN, other=CLEAN[::-1]))
    for settings in (dict(), dict(clean_key="mine")):
        assert (apply(file, key="noisy_label", **settings) == NOISY).all()
    with pytest.raises(ValueError, match=r"a.npz are not the data set's: .* in another order"):
        apply(file, key="noisy_label", clean_key="other")
    shuffled = write(tmp_path / "b.npz", dict(PUBLISHED, clean_label=CLEAN[::-1]))
    with pytest.raises(ValueError, match=r"b.npz are not the data set's"):
        apply(shuffled, key="noisy_label")
    with pytest.raises(ValueError, match="has no array 'none'"):
        apply(file, key="noisy_label", clean_key="none")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (NOISY[:-1], "holds 19 labels and the data set 20 samples; .* put DataSubset around"),
        (NOISY + 1, r"the labels of .* must be from 0 to 4, got 5"),
        (NOISY - 1, r"must be from 0 to 4, got -1"),
        (NOISY + 0.5, "must be integers, got float64"),
        (NOISY.reshape(4, 5), r"got shape \(4, 5\)"),
    ],
)
def test_wrong_labels(tmp_path, labels, message):
    np.save(tmp_path / "a.npy", labels)
    with pytest.raises(ValueError, match=message):
        apply(tmp_path / "a.npy")


def test_wrong_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the file none.npy does not exist"):
        read_arrays("none.npy")
    with pytest.raises(ValueError, match=r"a.txt must be a file of type .npy, .npz, .pt, .pth"):
        read_arrays("a.txt")
    np.save(tmp_path / "a.npy", NOISY)
    with pytest.raises(ValueError, match=r"holds one array without a name; leave out 'labels'"):
        read_labels(str(tmp_path / "a.npy"), "labels", None)
    for name in ("cut.npy", "cut.npz", "cut.pt"):
        (tmp_path / name).write_bytes(b"\x93NUMPY"[:5])
        with pytest.raises(ValueError, match=f"{name} is refused: it is damaged"):
            read_arrays(tmp_path / name)
    torch.save(dict(note="empty"), tmp_path / "empty.pt")
    with pytest.raises(ValueError, match=r"empty.pt holds no array"):
        read_arrays(tmp_path / "empty.pt")


def attacks(marker):
    run = Calls(os.system, f"touch '{marker}'")
    objects = np.array([run, None], dtype=object)
    return {
        "call.pt": run,
        "in dict.pt": dict(noisy_label=NOISY, extra=run),
        "getattr.pt": Calls(getattr, np.ndarray, "tofile"),
        "objects.pt": objects,
        "dtype.pt": Calls(np.dtype, "O"),
        "objects.npy": objects,
        "objects.npz": objects,
    }


@pytest.mark.parametrize("name", attacks(""))
def test_crafted_files_are_refused_and_do_not_run(tmp_path, name):
    marker, file = tmp_path / "was executed", tmp_path / name
    content = attacks(marker)[name]
    if file.suffix == ".pt":
        torch.save(content, file)
    elif file.suffix == ".npy":
        np.save(file, content, allow_pickle=True)
    else:
        np.savez(file, noisy_label=content)
    with pytest.raises(ValueError, match=f"{name} is refused: .* could run code when read"):
        apply(file, **({} if file.suffix == ".npy" else dict(key="noisy_label")))
    assert not marker.exists()


def test_control_the_crafted_files_do_run_elsewhere(tmp_path):
    marker = tmp_path / "was executed"
    torch.save(attacks(marker)["in dict.pt"], tmp_path / "a.pt")
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert marker.exists()


def test_what_the_user_allowed_torch_is_not_allowed_here(tmp_path, monkeypatch):
    """And stays allowed elsewhere."""
    marker = tmp_path / "was executed"
    torch.save(dict(noisy_label=NOISY, extra=attacks(marker)["call.pt"]), tmp_path / "a.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with torch.serialization.safe_globals([os.system]):
        with pytest.raises(ValueError, match=r"a.pt is refused"):
            apply(tmp_path / "a.pt", key="noisy_label")
        assert os.system in torch.serialization.get_safe_globals()
    assert not marker.exists()


def test_cifar100n_as_published(cifarn_labels, tmp_path):
    """A dict of arrays, written by torch in both of its formats."""
    arrays = read_arrays(cifarn_labels)
    content = dict(clean_label=arrays["c100_clean"], noisy_label=arrays["c100_noisy"])
    for legacy in (False, True):
        file = tmp_path / "CIFAR-100_human.pt"
        torch.save(content, file, _use_new_zipfile_serialization=not legacy)
        noise = LabelNoise("file", file=str(file), key="noisy_label")
        noisy = noise.apply(content["clean_label"], 100)
        assert (noisy != content["clean_label"]).mean() == 0.402  # the published rate
        with pytest.raises(ValueError, match="in another order"):
            noise.apply(content["clean_label"][::-1], 100)
