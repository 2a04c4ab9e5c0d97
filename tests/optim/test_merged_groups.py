"""Merged parameter groups: the same updates, fewer operations, old checkpoints."""

import copy

import pytest
from cut_off import Cut, Killed, kind_of_run
from cut_off import train as train_command
from networks import batch, build, wrn
from runs import assert_same, digits_student, weights
from torch.utils._python_dispatch import TorchDispatchMode

from mmkd_logit.engine import runner as engine_runner
from mmkd_logit.registry import OPTIM_WRAPPER_CONSTRUCTORS

PARAMWISE = dict(norm_decay_mult=0.0, flat_decay_mult=0.0, bias_decay_mult=0.0)
OPTIMIZERS = [
    dict(type="SGD", lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
    dict(type="AdamW", lr=0.01, weight_decay=0.05),
]
MERGED, DEFAULT = "mmkd_logit.MergedGroupsOptimConstructor", "DefaultOptimWrapperConstructor"


class Count(TorchDispatchMode):
    """Counts the operations that torch dispatches."""

    operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += 1
        return function(*args, **(kwargs or {}))


def wrapper(model, kind, optimizer, paramwise=PARAMWISE, **kwargs):
    cfg = dict(
        type=kind, optim_wrapper_cfg=dict(optimizer=optimizer, **kwargs), paramwise_cfg=paramwise
    )
    return OPTIM_WRAPPER_CONSTRUCTORS.build(copy.deepcopy(cfg))(model)


def update(model, optimizer, steps):
    inputs, samples = batch()
    for _ in range(steps):
        optimizer.update_params(model(inputs, samples, mode="loss")["loss"])


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer["type"])
def test_updates_and_states_loaded_from_either_are_the_same(optimizer):
    """After three updates, and after two more from a state with a group for each parameter."""
    first = build(wrn())
    second = copy.deepcopy(first)
    plain, merged = wrapper(first, DEFAULT, optimizer), wrapper(second, MERGED, optimizer)
    assert len(plain.optimizer.param_groups) > len(merged.optimizer.param_groups) == 2
    for each in (plain, merged):
        rates = each.get_lr()
        assert {key: set(values) for key, values in rates.items()} == {
            "base_lr": {optimizer["lr"]},
            "lr": {optimizer["lr"]},
        }
    update(first, plain, 3)
    update(second, merged, 3)
    assert_same(weights(first), weights(second))
    third = copy.deepcopy(second)
    resumed = wrapper(third, MERGED, optimizer)
    resumed.load_state_dict(copy.deepcopy(plain.state_dict()))
    again = copy.deepcopy(second)
    of_merged = wrapper(again, MERGED, optimizer)
    of_merged.load_state_dict(copy.deepcopy(merged.state_dict()))
    update(first, plain, 2)
    for model, other in ((third, resumed), (again, of_merged)):
        update(model, other, 2)
        assert_same(weights(first), weights(model))


def test_groups_of_the_same_settings_are_updated_together():
    """With ``foreach``, the default on a GPU, the operations do not grow with the parameters."""
    counted = {}
    for kind in (DEFAULT, MERGED):
        model = build(wrn())
        optimizer = wrapper(model, kind, dict(OPTIMIZERS[0], foreach=True))
        update(model, optimizer, 1)
        inputs, samples = batch()
        optimizer.backward(model(inputs, samples, mode="loss")["loss"])
        with Count() as count:
            optimizer.step()
        counted[kind] = count.operations
    assert counted[MERGED] <= 12
    assert counted[DEFAULT] > 10 * counted[MERGED]


@pytest.mark.parametrize(
    ("paramwise", "kwargs"),
    [
        (dict(PARAMWISE, bias_lr_mult=2.0), {}),
        (dict(PARAMWISE, custom_keys=dict(head=dict(lr_mult=0.5))), {}),
        (PARAMWISE, dict(clip_grad=dict(max_norm=1.0))),
    ],
)
def test_groups_stay_where_it_would_change_more(paramwise, kwargs):
    model = build(wrn())
    optimizer = wrapper(model, MERGED, OPTIMIZERS[0], paramwise, **kwargs)
    assert len(optimizer.optimizer.param_groups) == len(list(model.parameters()))


def test_a_state_of_another_network_is_refused():
    first, second = build(wrn()), build(wrn(widen_factor=2, depth=16))
    saved = wrapper(first, DEFAULT, OPTIMIZERS[0]).state_dict()
    with pytest.raises(ValueError, match="parameter group"):
        wrapper(second, MERGED, OPTIMIZERS[0]).load_state_dict(saved)


def test_a_run_merges_them_and_resumes_what_an_older_version_saved(tmp_path, monkeypatch):
    def config(folder, **kwargs):
        optimizer = dict(optimizer=OPTIMIZERS[0], paramwise_cfg=PARAMWISE, **kwargs)
        return kind_of_run(tmp_path / folder, digits_student(), optim_wrapper=optimizer)

    whole = train_command(config("whole"))
    assert len(whole.optim_wrapper.optimizer.param_groups) == 2
    with monkeypatch.context() as patch:
        patch.setattr(engine_runner, "merge_parameter_groups", lambda cfg: None)
        with pytest.raises(Killed):
            train_command(config("parts"), None, Cut(6))
    resumed = train_command(config("parts"), "auto")
    assert_same(weights(whole), weights(resumed))
