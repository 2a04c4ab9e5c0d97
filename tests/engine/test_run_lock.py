"""Two runs in one work folder."""

import json
import os
import signal
import stat
import time
from pathlib import Path

import pytest
from commands import Tiny, error_of, folder_of, train
from disks import read_only
from processes import fork

from mmkd_logit.engine import lock as run_lock
from mmkd_logit.engine.lock import LOCK, FolderInUseError, only_run_in, user_of
from mmkd_logit.engine.train import main


def test_the_second_is_refused_and_says_by_whom(tmp_path):
    with only_run_in(tmp_path / "a", tmp_path / "b"):
        written = json.loads((tmp_path / "a" / LOCK).read_text())
        assert written["pid"] == os.getpid()
        message = (
            rf"the work folder {tmp_path}/b is in use by process {os.getpid()} on .* since "
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(python .*\); wait for it, end it, or give this run "
            "another --work-dir"
        )
        with pytest.raises(FolderInUseError, match=message), only_run_in(tmp_path / "b"):
            pass
        assert user_of(tmp_path / "a").startswith(f"process {os.getpid()} on ")
        with pytest.raises(FolderInUseError), only_run_in(tmp_path / "c", tmp_path / "b"):
            pass
        assert user_of(tmp_path / "c") is None  # what it had got it gave back
    assert user_of(tmp_path / "a") is None
    assert user_of(tmp_path / "nowhere") is None
    with only_run_in(tmp_path / "a"):
        pass


def test_a_file_that_was_left_behind_blocks_nobody(tmp_path):
    for text in ("", "{", '{"pid": 1}', json.dumps(dict(pid=1, host="x", since="y", command="z"))):
        (tmp_path / LOCK).write_text(text)
        assert user_of(tmp_path) is None
        with only_run_in(tmp_path):
            assert user_of(tmp_path) is not None
        with only_run_in(tmp_path):
            (tmp_path / LOCK).write_text(text)  # not ours
            assert user_of(tmp_path)


def test_what_a_killed_run_left_half_written_goes(tmp_path):
    (tmp_path / ".epoch_3.pth.17-0123abcd.part").write_text("half")
    (tmp_path / "mine.part").write_text("not of us")
    with only_run_in(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, "mine.part"]


def test_a_link_in_its_place_is_refused(tmp_path):
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to("../precious")
    with (
        pytest.raises(OSError, match=r"\.lock cannot be written: it is a link"),
        only_run_in(tmp_path / "run"),
    ):
        pass
    assert (tmp_path / "precious").read_text() == "mine"


def in_a_child(do):
    """Do something in a child that lives on."""
    return fork(lambda: (do(), time.sleep(600)))


def test_the_kernel_takes_it_away(tmp_path):
    """Also while a worker of the killed process lives on."""
    reader, writer = os.pipe()

    def train():
        with only_run_in(tmp_path):
            worker = in_a_child(lambda: None)
            os.write(writer, f"{worker}\n".encode())
            time.sleep(600)

    process = in_a_child(train)
    worker = int(os.read(reader, 100))
    try:
        assert user_of(tmp_path).startswith(f"process {process} on ")
        with pytest.raises(FolderInUseError), only_run_in(tmp_path):
            pass
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.kill(worker, 0)  # it lives
        with only_run_in(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(reader)
        os.close(writer)


def test_somebody_who_looks_does_not_refuse_us(tmp_path, monkeypatch):
    """He holds the lock for a moment."""
    (tmp_path / LOCK).touch()
    looking = open(tmp_path / LOCK, "rb")  # noqa: SIM115
    run_lock.fcntl.flock(looking, run_lock.fcntl.LOCK_SH)
    monkeypatch.setattr("time.sleep", lambda seconds: looking.close())
    with only_run_in(tmp_path):
        pass


def test_a_disk_without_locks(tmp_path, monkeypatch, capsys):
    def flock(*args):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with only_run_in(tmp_path):
        assert user_of(tmp_path) is None
    assert capsys.readouterr().err == (
        f"warning: the disk of {tmp_path} has no locks (Function not implemented); see to it that "
        "no other run writes there\n"
    )


def test_train_refuses_before_it_touches_anything(workplace, capsys):
    tiny = Tiny()
    train(tiny.student)
    folder = folder_of(tiny.student)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != LOCK}
    with only_run_in(folder):
        for words in ([tiny.student], [tiny.student, "--resume"], [tiny.kd, "--train-teacher"]):
            if tiny.kd in words:  # its teacher is trained elsewhere
                teacher = only_run_in(folder_of(tiny.teacher))
                teacher.__enter__()
            message = error_of(capsys, main, *words)
            assert re_user(message, folder) or re_user(message, folder_of(tiny.teacher))
        teacher.__exit__(None, None, None)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != LOCK}
    assert after == before
    train(tiny.student, "--resume")


def re_user(message, folder):
    return message.startswith(f"the work folder {folder} is in use by process {os.getpid()} on ")


def test_a_folder_that_can_only_be_read(workplace, capsys):
    tiny = Tiny()
    Path("shut").mkdir()
    words = [tiny.student, "--work-dir", "shut/run"]
    if os.geteuid() == 0:
        with read_only("shut"):
            message = error_of(capsys, main, *words)
    else:
        Path("shut").chmod(stat.S_IRUSR | stat.S_IXUSR)
        message = error_of(capsys, main, *words)
    shut = Path("shut").resolve()
    assert message == f"work_dir: {shut} may not be written; name another folder"
    Path("file").touch()
    message = error_of(capsys, main, tiny.student, "--work-dir", "file/run")
    assert message == f"work_dir: {Path('file').resolve()} is a file; name a folder"
