"""What a work folder says of its run."""

import pytest

from mmkd_logit.utils.files import (
    RUN,
    log_folders,
    note_checkpoint,
    note_logs,
    note_start,
    read_run,
)


def test_a_run_that_is_resumed_and_begun_anew(tmp_path):
    assert read_run(tmp_path) is None
    note_start(tmp_path, "20240102_000000", anew=True)
    note_checkpoint(tmp_path, "x/epoch_1.pth")
    note_checkpoint(tmp_path, "x/epoch_2.pth")
    note_start(tmp_path, "20240101_000000", anew=False)  # the clock was set back
    note_checkpoint(tmp_path, "x/epoch_2.pth")
    note_checkpoint(tmp_path, "x/epoch_3.pth", gone=["x/epoch_1.pth"])
    assert read_run(tmp_path) == dict(
        logs=["20240102_000000", "20240101_000000"],
        checkpoints=["x/epoch_2.pth", "x/epoch_3.pth"],
    )
    older = ["20231231_000000", "20240101_000000", "20240102_000000"]
    assert log_folders(tmp_path, older) == older[:0:-1]
    note_start(tmp_path, "20240103_000000", anew=True)
    assert read_run(tmp_path) == dict(logs=["20240103_000000"], checkpoints=[])
    note_logs(tmp_path, ["a", "b", "a"])
    assert log_folders(tmp_path, ["b", "a"]) == ["a", "b"]


def test_a_run_of_before_there_was_such_a_file(tmp_path):
    for name in ("20240101_000000", "20240102_000000"):
        (tmp_path / name / "vis_data").mkdir(parents=True)
        (tmp_path / name / "vis_data/scalars.json").touch()
    assert log_folders(tmp_path, ["2", "1"]) == ["1", "2"]
    note_start(tmp_path, "20240103_000000", anew=False)
    logs = ["20240101_000000", "20240102_000000", "20240103_000000"]
    assert log_folders(tmp_path, logs) == logs


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"logs": 1, "checkpoints": []}', '{"logs": [1]}', "\xff"]
)
def test_anything_else_says_nothing(tmp_path, text):
    (tmp_path / RUN).write_text(text, encoding="latin1")
    assert read_run(tmp_path) is None
    note_checkpoint(tmp_path, "epoch_1.pth")
    assert read_run(tmp_path) == dict(logs=[], checkpoints=["epoch_1.pth"])
