"""A loss says its own label and whether it sees the sum of the logits; no list elsewhere does."""

import copy

import pytest
import torch

from mmkd_logit.losses.base import LogitLoss, describe_loss
from mmkd_logit.registry import MODELS

MODELS.import_from_location()
LOSSES = {
    name: cls
    for name, cls in MODELS.module_dict.items()
    if isinstance(cls, type) and issubclass(cls, LogitLoss)
}
SETTINGS = {
    "ScaledBinaryKLDivLoss": dict(tau=3),
    "ScaledKLDivLoss": dict(tau=3),
    "LogitStandardization": dict(loss=dict(type="mmkd_logit.LogitMSELoss")),
}


def build(name):
    return MODELS.build(dict(type=f"mmkd_logit.{name}", **copy.deepcopy(SETTINGS.get(name, {}))))


def test_all_losses_of_logits_are_here():
    module = {
        name
        for name, cls in MODELS.module_dict.items()
        if cls.__module__.startswith("mmkd_logit.losses.")
    }
    assert module - {"TorchdistillLoss"} == set(LOSSES)  # that one compares features


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_names_itself(name):
    said = describe_loss(build(name))
    assert said["label"], f"{name} needs label = 'ITS NAME IN LEGENDS'"
    assert said == describe_loss(dict(type=f"mmkd_logit.{name}", **SETTINGS.get(name, {})))
    assert isinstance(said["shows_tau"], bool)


@pytest.mark.parametrize("name", LOSSES)
def test_shift_invariance_is_as_the_loss_says(name):
    loss, generator = build(name).double(), torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 6, 5, dtype=torch.double, generator=generator)
    labels = [torch.arange(6) % 5] if loss.needs_labels else []
    shifts = torch.randn(6, 1, dtype=torch.double, generator=generator)
    before, after = loss(student, teacher, *labels), loss(student + shifts, teacher, *labels)
    assert torch.isclose(before, after, rtol=1e-9).item() == type(loss).shift_invariant


def test_labels_are_distinct():
    labels = [describe_loss(build(name))["label"] for name in LOSSES]
    assert len(set(labels)) == len(labels)


def test_a_loss_of_somebody_else_is_called_by_its_class():
    class Their(torch.nn.Module):
        pass

    expected = dict(label="Their", shows_tau=False, shift_invariant=None)
    assert describe_loss(Their()) == describe_loss(dict(type=Their)) == expected
