"""Only a run's own best checkpoint is ever deleted for a better one."""

from types import SimpleNamespace

import pytest
from mmengine.hooks import CheckpointHook

from mmkd_logit.engine.save import OwnBestCheckpointHook


@pytest.mark.parametrize("elsewhere", [False, True])
def test_it_is_sought_where_the_run_saves(tmp_path, elsewhere):
    saving = CheckpointHook(out_dir=str(tmp_path / "disk") if elsewhere else None)
    runner = SimpleNamespace(work_dir=str(tmp_path / "run"), hooks=[saving])
    own = tmp_path / "disk" / "run" if elsewhere else tmp_path / "run"
    info = dict(
        best_ckpt=str(tmp_path / "other" / "best_x_epoch_3.pth"),
        best_ckpt_y=str(own / "best_y_epoch_1.pth"),
        best_ckpt_z=None,
        best_score=3,
    )
    checkpoint = dict(message_hub=dict(runtime_info=dict(info)))
    OwnBestCheckpointHook().after_load_checkpoint(runner, checkpoint)
    expected = dict(info, best_ckpt=str(own / "best_x_epoch_3.pth"))
    assert checkpoint["message_hub"]["runtime_info"] == expected


def test_weights_alone_have_none():
    for checkpoint in ({}, dict(message_hub=3), dict(message_hub={}), [1]):
        OwnBestCheckpointHook().after_load_checkpoint(SimpleNamespace(), checkpoint)
