import pytest
from mmengine.config import Config

from mmkd_logit.engine.config import scale_epochs


def config(**kwargs):
    fields = dict(train_cfg=dict(by_epoch=True, max_epochs=200, val_interval=5), **kwargs)
    return Config(fields)


def test_everything_that_counts_in_epochs():
    cfg = config(
        param_scheduler=[
            dict(type="LinearLR", begin=0, end=5, by_epoch=True),
            dict(type="MultiStepLR", milestones=[100, 150]),
            dict(type="CosineAnnealingLR", T_max=1000, by_epoch=False),
            dict(type="OneCycleLR", eta_max=0.1, total_steps=200),
        ],
        custom_hooks=[
            dict(type="EMAHook", begin_epoch=100),
            dict(type="mmkd_logit.SequentialTeacherHook", stages=[dict(begin=100)]),
            dict(type="mmkd_logit.SequentialTeacherHook", by_epoch=False, stages=[dict(begin=7)]),
            dict(type="SwitchRecipeHook", schedule=[dict(action_epoch=150, batch_augments=None)]),
        ],
    )
    cfg.train_cfg.update(val_begin=50, dynamic_intervals=[(180, 10)])
    scale_epochs(cfg, 20)
    assert cfg.train_cfg == dict(
        by_epoch=True, max_epochs=20, val_interval=1, val_begin=5, dynamic_intervals=[[18, 1]]
    )
    warmup, steps, cosine, cycle = cfg.param_scheduler
    assert cycle.total_steps == 20
    assert cfg.custom_hooks[0].begin_epoch == 10
    assert cfg.custom_hooks[3].schedule[0].action_epoch == 15
    assert (warmup.begin, warmup.end) == (0, 1)
    assert steps.milestones == [10, 15]
    assert cosine.T_max == 1000
    assert cfg.custom_hooks[1].stages[0].begin == 10
    assert cfg.custom_hooks[2].stages[0].begin == 7


def test_one_epoch_has_no_step_before_it_begins():
    cfg = config(param_scheduler=dict(type="MultiStepLR", milestones=[100, 150]))
    scale_epochs(cfg, 1)
    assert cfg.param_scheduler.milestones == [1, 1]
    assert cfg.train_cfg.val_interval == 1


def test_every_stage_of_a_hook_is_reached():
    hook = dict(type="mmkd_logit.SequentialTeacherHook", stages=[dict(begin=190)])
    for epochs, begin in ((1, 0), (2, 1), (10, 9), (100, 95)):
        cfg = config(custom_hooks=[hook])
        scale_epochs(cfg, epochs)
        assert cfg.custom_hooks[0].stages[0].begin == begin


def test_the_same_number_changes_nothing():
    cfg = config(param_scheduler=dict(type="MultiStepLR", milestones=[100, 150]))
    before = cfg.to_dict()
    scale_epochs(cfg, 200)
    assert cfg.to_dict() == before


def test_wrong_words():
    with pytest.raises(ValueError, match="--epochs must be at least 1, got 0"):
        scale_epochs(config(), 0)
    with pytest.raises(ValueError, match="--epochs needs a config that trains by epochs"):
        scale_epochs(Config(dict(train_cfg=dict(by_epoch=False, max_iters=100))), 3)


def test_periods_of_restarts_are_scaled():
    restarts = dict(type="CosineRestartLR", periods=[100, 100], restart_weights=[1, 1])
    cfg = Config(dict(train_cfg=dict(by_epoch=True, max_epochs=200), param_scheduler=[restarts]))
    scale_epochs(cfg, 20)
    assert cfg.param_scheduler[0].periods == [10, 10]
