"""What a run prints, told once."""

from mmkd_logit.lab.scheduler import LogLines


def test_gives_each_line_once(tmp_path):
    log = tmp_path / "log"
    log.write_text("of an earlier run\n")
    lines = LogLines(log)
    assert lines.read() == []
    with log.open("a") as file:
        file.write("one\ntwo\n")
    assert lines.read() == ["one", "two"]
    assert lines.read() == []


def test_waits_for_a_log_that_is_not_there_yet(tmp_path):
    log = tmp_path / "log"
    lines = LogLines(log)
    assert lines.read() == []
    log.write_bytes(b"half \xff a line")
    assert lines.read() == ["half \ufffd a line"]


def test_reading_makes_it_young(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    (tmp_path / "log").touch()
    lines = LogLines(tmp_path / "log")
    now[0] = 131.0
    assert lines.age() == 31.0
    lines.read()
    assert lines.age() == 0.0
