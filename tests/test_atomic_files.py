"""Files that appear whole or not at all."""

import errno
import os
import resource
import signal
import time
from pathlib import Path

import pausing
import pytest
from disks import fill, small_disk
from processes import fork

from mmkd_logit.utils import files as _atomic_files
from mmkd_logit.utils.files import remove_parts, replacing, write_bytes, write_text

OLD, NEW = b"old" * 1000, b"new!" * 1000


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


@pytest.fixture
def paused(tmp_path):
    """Start a writer that stops at a place; ended by the test or after it."""
    started = []

    def start(place, target):
        sign = tmp_path / f"sign{len(started)}"

        def write():
            pausing.install(pausing.Pause(place, target.name, 1, sign))
            write_bytes(target, NEW)

        started.append(fork(write))
        while not sign.is_file():
            time.sleep(0.01)

    yield start, lambda: kill(started.pop())
    for process in started:
        kill(process)


def kill(process):
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


@pytest.mark.parametrize(
    ("place", "content"), [("within", OLD), ("before", OLD), ("after", NEW)], ids=lambda x: x[:6]
)
def test_killed_anywhere_it_is_whole(tmp_path, paused, place, content):
    folder = tmp_path / "folder"
    folder.mkdir()
    target = folder / "a.pth"
    target.write_bytes(OLD)
    start, kill_it = paused
    start(place, target)
    kill_it()
    assert target.read_bytes() == content
    assert len(names(folder)) == 1 + (place != "after")
    # What is half written goes with the next write of the file.
    write_bytes(target, b"third")
    assert target.read_bytes() == b"third"
    assert names(folder) == ["a.pth"]


def test_what_a_living_process_writes_stays(tmp_path, paused):
    folder = tmp_path / "folder"
    folder.mkdir()
    start, kill_it = paused
    start("within", folder / "a.pth")
    (part,) = names(folder)
    (folder / ".other.1-0123abcd.part").write_bytes(b"of a killed process")
    (folder / ".mine.part").write_bytes(b"of somebody else's program")
    (folder / ".b.1-0123abcd.part").mkdir()
    write_bytes(folder / "a.pth", b"mine")
    assert part in names(folder)
    assert remove_parts(folder) == [".other.1-0123abcd.part"]
    assert {part, ".mine.part", ".b.1-0123abcd.part"} < set(names(folder))
    kill_it()
    assert remove_parts(folder) == [part]
    assert remove_parts(folder / "none") == []


def break_off(target, error):
    with replacing(target) as file:
        file.write(b"half")
        raise error


def test_an_error_leaves_what_was_there(tmp_path):
    target = tmp_path / "a.txt"
    target.write_bytes(OLD)
    for error in (ZeroDivisionError, FileNotFoundError(2, "none", "what it is made from")):
        with pytest.raises((ZeroDivisionError, FileNotFoundError)) as raised:
            break_off(target, error)
        assert raised.value is error or raised.type is error
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "\udc80")
    assert target.read_bytes() == OLD
    assert names(tmp_path) == ["a.txt"]
    write_text(target, "\udc80", errors="backslashreplace")
    assert target.read_text() == "\\udc80"


def test_links_pipes_and_folders(tmp_path):
    write_bytes(tmp_path / "new/deep/a", b"1")
    (tmp_path / "link").symlink_to("new/deep/a")
    write_bytes(tmp_path / "link", b"2", follow=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "new/deep/a").read_bytes() == b"2"
    for target in ("new/deep/a", "new", "/dev/null", "nowhere"):
        (tmp_path / "link").unlink()
        (tmp_path / "link").symlink_to(target)
        write_bytes(tmp_path / "link", b"3")
        assert not (tmp_path / "link").is_symlink()
        assert (tmp_path / "link").read_bytes() == b"3"
    assert (tmp_path / "new/deep/a").read_bytes() == b"2"
    (tmp_path / "folder").symlink_to("new")
    write_bytes(tmp_path / "folder/deep/a", b"4")
    assert (tmp_path / "new/deep/a").read_bytes() == b"4"
    reader, writer = os.pipe()
    write_bytes(f"/dev/fd/{writer}", b"through", follow=True)
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match=r"new cannot be written: Is a directory|Is a directory"):
        write_bytes(tmp_path / "new", b"3")
    with pytest.raises(OSError, match=r"deep/a/b cannot be written: (Not a directory|File exists)"):
        write_bytes(tmp_path / "new/deep/a/b", b"3")


def test_long_names(tmp_path):
    target = tmp_path / ("x" * 255)
    write_bytes(target, b"1")
    assert names(tmp_path) == [target.name]


def test_it_reaches_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []

    def noting(name, function):
        def noted(*args):
            events.append(name)
            return function(*args)

        return noted

    monkeypatch.setattr(os, "fsync", noting("sync", os.fsync))
    monkeypatch.setattr(_atomic_files, "_swap", noting("swap", _atomic_files._swap))
    write_bytes(tmp_path / "a", b"1")
    assert events == ["sync", "swap", "sync"]  # the last one is of the folder


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    def flock(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    (tmp_path / ".a.1-0123abcd.part").write_bytes(b"whose?")
    write_bytes(tmp_path / "a", b"1")
    assert names(tmp_path) == [".a.1-0123abcd.part", "a"]


def test_a_cleaner_that_was_faster(tmp_path, monkeypatch):
    """It may take a file away between its making and its lock."""
    flock, seen = _atomic_files.fcntl.flock, []

    def stolen(file, how):
        if not seen:
            seen.append(file.name)
            os.unlink(file.name)
        elif len(seen) == 1:
            seen.append(file.name)
            raise BlockingIOError
        return flock(file, how)

    monkeypatch.setattr("fcntl.flock", stolen)
    write_bytes(tmp_path / "a", b"1")
    assert len(seen) == 2
    assert (tmp_path / "a").read_bytes() == b"1"


def write_pieces(target):
    with replacing(target) as file:
        for _ in range(100):  # it is noticed at some later one, or at the end
            file.write(bytes(1000))
        file.write(bytes(10_000))


def test_full_disk(tmp_path):
    with small_disk(tmp_path / "disk", "256k") as disk:
        target = disk / "folder" / "a.pth"
        write_bytes(target, OLD)
        plug = fill(disk, left=8192)
        message = (
            rf"{target} cannot be written: no space is left on the disk \(0\.2 MiB to write, 8\.0 "
            rf"KiB free in {target.parent}\); what was there before is whole\. Make space, then "
            "run again"
        )
        with pytest.raises(OSError, match=message) as raised:
            write_bytes(target, bytes(200_000))
        assert raised.value.errno == errno.ENOSPC
        assert target.read_bytes() == OLD
        assert names(target.parent) == ["a.pth"]
        with pytest.raises(OSError, match=r"no space is left on the disk \(8\.0 KiB free"):
            write_pieces(target)
        assert target.read_bytes() == OLD
        plug.unlink()
        write_bytes(target, bytes(200_000))
        assert target.read_bytes() == bytes(200_000)


def test_files_may_not_be_large(tmp_path):
    target = tmp_path / "a.pth"
    target.write_bytes(OLD)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"a\.pth cannot be written: it is larger than files may"):
            write_bytes(target, bytes(20_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert target.read_bytes() == OLD
    assert names(tmp_path) == ["a.pth"]
