"""What run.json says of a work folder's run."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config

from mmkd_logit.engine.fingerprint import (
    RUN,
    describe_run,
    log_folders,
    read_run,
    should_resume,
    write_run,
)
from mmkd_logit.engine.resume import record_start
from mmkd_logit.engine.save import record_checkpoint


def runner(folder, log, iter=0, loaded=None):
    return SimpleNamespace(
        work_dir=str(folder), log_dir=f"{folder}/{log}", iter=iter, max_iters=9, _load_from=loaded
    )


def test_a_run_that_is_resumed_and_begun_anew(tmp_path):
    assert read_run(tmp_path) == {}
    first = runner(tmp_path, "20240102_000000")
    for name in ("last_checkpoint", "final.pth"):
        (tmp_path / name).touch()
    record_start(first, dict(seed=1))
    assert [path.name for path in tmp_path.iterdir()] == [RUN]
    for epoch in (1, 2, 3):
        record_checkpoint(first, f"x/epoch_{epoch}.pth", gone=[f"x/epoch_{epoch - 2}.pth"])
    assert read_run(tmp_path)["checkpoints"] == ["x/epoch_2.pth", "x/epoch_3.pth"]
    # The last one was damaged, and the clock set back.
    record_start(runner(tmp_path, "20240101_000000", 4, "y/epoch_2.pth"), dict(seed=1))
    logs = ["20240102_000000", "20240101_000000"]
    assert read_run(tmp_path) == dict(seed=1, logs=logs, checkpoints=["x/epoch_2.pth"])
    assert log_folders(tmp_path, ["20231231_000000", *sorted(logs)]) == logs
    record_start(runner(tmp_path, "20240104_000000", 4, "/other/epoch_9.pth"), dict(seed=1))
    assert read_run(tmp_path)["checkpoints"] == ["/other/epoch_9.pth"]
    record_start(runner(tmp_path, "20240103_000000"), dict(seed=2))
    assert read_run(tmp_path) == dict(seed=2, logs=["20240103_000000"], checkpoints=[])


def test_a_folder_of_before_there_was_such_a_file(tmp_path):
    for name in ("20240101_000000", "20240102_000000"):
        (tmp_path / name / "vis_data").mkdir(parents=True)
        (tmp_path / name / "vis_data/scalars.json").touch()
    assert log_folders(tmp_path, ["2", "1"]) == ["1", "2"]
    record_start(runner(tmp_path, "20240103_000000", 4, "epoch_1.pth"), {})
    logs = ["20240101_000000", "20240102_000000", "20240103_000000"]
    assert read_run(tmp_path) == dict(logs=logs, checkpoints=["epoch_1.pth"])


def test_only_the_same_run_is_resumed(tmp_path):
    cfg = Config(dict(model=dict(type="X"), randomness=dict(seed=3), work_dir=str(tmp_path)))
    assert not should_resume(cfg)
    write_run(tmp_path, **describe_run(cfg), logs=["a"], checkpoints=["b"])
    assert should_resume(cfg)
    assert not should_resume(cfg, processes=2)
    assert not should_resume(Config(dict(cfg, randomness=dict(seed=4))))
    write_run(tmp_path, checkpoints=["c"])
    assert should_resume(cfg)
    assert read_run(tmp_path) == dict(describe_run(cfg), logs=["a"], checkpoints=["c"])
    assert [path.name for path in tmp_path.iterdir()] == [RUN]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"logs": 1, "checkpoints": {}}', '{"logs": [1]}', "\xff"]
)
def test_anything_else_says_nothing(tmp_path, text):
    (tmp_path / RUN).write_text(text, encoding="latin1")
    assert read_run(tmp_path) == {}
    record_checkpoint(runner(tmp_path, ""), "epoch_1.pth")
    assert read_run(tmp_path) == dict(checkpoints=["epoch_1.pth"])
