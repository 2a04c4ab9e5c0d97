"""Damaged checkpoints are seen before they are read."""

import io
import zipfile

import pytest
import torch

from mmkd_logit.utils.files import sealed, why_damaged


def seal(content):
    return b"".join(sealed(content))


@pytest.fixture(scope="module")
def content():
    generator = torch.Generator().manual_seed(0)
    weights = dict(w=torch.randn(3, 4, generator=generator), b=torch.randn(4, generator=generator))
    buffer = io.BytesIO()
    torch.save(dict(meta=dict(epoch=3, cfg="x = 1"), state_dict=weights), buffer)
    return buffer.getvalue()


def test_every_flipped_bit_and_every_cut(content, tmp_path):
    path, whole = tmp_path / "a.pth", seal(content)
    for place in [*range(0, len(whole) - 250, 5), *range(len(whole) - 250, len(whole))]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert why_damaged(path, only_zip=True) is not None, place
    for length in range(0, len(whole), 9):
        path.write_bytes(whole[:length])
        assert why_damaged(path, only_zip=True) is not None, length
    path.write_bytes(whole + b"x")
    assert why_damaged(path) is not None


def test_the_checksum_of_the_whole_disturbs_nobody(content, tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(seal(content))
    assert why_damaged(path) is None
    want = torch.load(io.BytesIO(content))["state_dict"]
    for kwargs in (dict(weights_only=True), dict(weights_only=False), dict(mmap=True)):
        found = torch.load(path, **kwargs)["state_dict"]
        assert all(torch.equal(found[name], weight) for name, weight in want.items())
    assert seal(seal(content)) == seal(content)
    assert sealed(content)[0].obj is content  # not copied
    for other in (b"", b"text", b"PK\5\6" + bytes(17), b"PK\5\6" + bytes(16) + b"\1\0x"):
        assert seal(other) == other  # no zip file, or one with a comment


def test_parts_have_checksums_too(content, tmp_path):
    """Those of checkpoints of others; the few bytes around the parts have none."""
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    for part in filter(None, parts.values()):
        begin = content.index(part)
        for place in range(begin, begin + len(part), 3):
            flipped = bytearray(content)
            flipped[place] ^= 1 << place % 8
            path.write_bytes(flipped)
            assert why_damaged(path, only_zip=True) is not None, place
    for length in range(0, len(content), 9):
        path.write_bytes(content[:length])
        assert why_damaged(path, only_zip=True) is not None, length
    path.write_bytes(b"")
    assert why_damaged(path) == "it is empty"


def test_which_part_is_damaged(content, tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    assert why_damaged(path, only_zip=True) is None
    begin = content.index(torch.load(path)["state_dict"]["w"].numpy().tobytes())
    flipped = bytearray(content)
    flipped[begin] ^= 1
    path.write_bytes(flipped)
    assert why_damaged(path).endswith("/data/0 in it does not fit its checksum")
    path.write_bytes(content[:-30])
    assert why_damaged(path) == "it is cut short or damaged"


def test_files_without_checksums(tmp_path):
    path = tmp_path / "a.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(torch.zeros(3), path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert why_damaged(path) is None
    torch.save(torch.zeros(3), path, _use_new_zipfile_serialization=False)
    assert why_damaged(path) is None
    assert why_damaged(path, only_zip=True) == "it is no file of PyTorch's"
