"""Checkpoints that know whether they are whole."""

import io
import zipfile

import pytest
import torch

from mmkd_logit.utils.files import sealed, why_damaged


@pytest.fixture(scope="module")
def content():
    generator = torch.Generator().manual_seed(0)
    weights = dict(w=torch.randn(3, 4, generator=generator), b=torch.randn(4, generator=generator))
    buffer = io.BytesIO()
    torch.save(dict(meta=dict(epoch=3, cfg="x = 1"), state_dict=weights), buffer)
    return buffer.getvalue()


def seal(content):
    return b"".join(bytes(part) for part in sealed(content))


def test_everybody_reads_it(content, tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(seal(content))
    assert why_damaged(path) is None
    expected = torch.load(io.BytesIO(content), weights_only=True)
    for kwargs in (dict(weights_only=True), dict(weights_only=False), dict(mmap=True)):
        found = torch.load(path, **kwargs)
        assert found["meta"] == expected["meta"]
        for name, weight in expected["state_dict"].items():
            assert torch.equal(found["state_dict"][name], weight)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    assert seal(seal(content)) == seal(content)


def test_every_flipped_bit_and_every_cut(content, tmp_path):
    path, whole = tmp_path / "a.pth", seal(content)
    missed = []
    places = {
        *range(0, 200),
        *range(200, len(whole) - 250, 5),
        *range(len(whole) - 250, len(whole)),
    }
    for place in sorted(places):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        if why_damaged(path, only_zip=True) is None:
            missed.append(place)
    assert not missed
    for length in range(0, len(whole), 9):
        path.write_bytes(whole[:length])
        assert why_damaged(path, only_zip=True) is not None, length
    path.write_bytes(whole + b"x")
    assert why_damaged(path) is not None
    path.write_bytes(b"")
    assert why_damaged(path) == "it is empty"


def test_files_of_others(content, tmp_path):
    """PyTorch's own have checksums of what they hold, unless they are turned off."""
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    assert why_damaged(path, only_zip=True) is None
    with zipfile.ZipFile(path) as archive:
        (entry,) = (each for each in archive.infolist() if each.filename.endswith("data/0"))
    begin = content.index(torch.load(path)["state_dict"]["w"].numpy().tobytes())
    flipped = bytearray(content)
    flipped[begin] ^= 1
    path.write_bytes(flipped)
    assert why_damaged(path) == f"{entry.filename} in it does not fit its checksum"
    path.write_bytes(content[:-30])
    assert why_damaged(path) == "it is cut short or damaged"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(torch.zeros(3), path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert why_damaged(path) is None
    torch.save(torch.zeros(3), path, _use_new_zipfile_serialization=False)
    assert why_damaged(path) is None
    assert why_damaged(path, only_zip=True) == "it is no file of PyTorch's"


def test_only_zip_files_get_one():
    for content in (b"", b"text", b"PK\5\6" + bytes(17), b"PK\5\6" + bytes(16) + b"\1\0x"):
        assert seal(content) == content
