"""The student's loss from a tensor of labels: the same bits as from a list, and no objects."""

import copy

import numpy as np
import pytest
import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.optim import OptimWrapper
from mmengine.utils import digit_version
from mmpretrain.models import ClsHead
from mmpretrain.structures import DataSample
from networks import batch, build, distiller, wrn
from torch import nn

from mmkd_logit.datasets.in_memory import SampleBatch

SMOOTH = dict(type="mmpretrain.LabelSmoothLoss", label_smooth_val=0.1, num_classes=4)
WEIGHTED = dict(type="mmpretrain.CrossEntropyLoss", class_weight=[1.0, 2.0, 3.0, 4.0])


class OwnHead(ClsHead):
    """A head that may look at anything in its samples."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
        self.fc = nn.Linear(16, num_classes)

    def forward(self, feats):
        return self.fc(feats[-1])

    def _get_loss(self, cls_score, data_samples, **kwargs):
        weights = torch.tensor([1.0 + sample.sample_idx for sample in data_samples])
        labels = torch.cat([sample.gt_label for sample in data_samples])
        each = nn.functional.cross_entropy(cls_score, labels, reduction="none")
        return dict(loss=(weights * each).mean())


def as_batch(samples):
    labels = torch.cat([sample.gt_label for sample in samples])
    for index, sample in enumerate(samples):
        sample.set_field(index, "sample_idx", field_type="metainfo")
    return SampleBatch(labels, np.arange(len(samples)), (8, 8))


def student_with(loss=None, **head):
    student = wrn()
    student["head"].update(head, **({} if loss is None else dict(loss=loss)))
    return student


@pytest.fixture
def made(monkeypatch):
    """Counts the samples that are made."""
    numbers = []
    init = DataSample.__init__

    def counting(self, *args, **kwargs):
        numbers.append(1)
        init(self, *args, **kwargs)

    monkeypatch.setattr(DataSample, "__init__", counting)
    return numbers


def losses_and_gradients(model, inputs, samples):
    losses = model(inputs, samples, mode="loss")
    sum(value for key, value in losses.items() if "loss" in key).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    return {
        key: value.detach() for key, value in losses.items() if torch.is_tensor(value)
    }, gradients


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("head", [{}, dict(loss=SMOOTH), dict(loss=WEIGHTED)])
@pytest.mark.parametrize("loss_kd", ["LogitMSELoss", "DKDLoss"])
def test_same_bits_as_through_a_list(alpha, head, loss_kd, made):
    inputs, samples = batch()
    whole = as_batch(samples)
    settings = dict(alpha=alpha, loss_kd=dict(type=f"mmkd_logit.{loss_kd}"))
    model = build(distiller(student=student_with(**head), **settings))
    expected = losses_and_gradients(copy.deepcopy(model), inputs, samples)
    made.clear()
    got = losses_and_gradients(model, inputs, whole)
    assert not made
    for theirs, ours in zip(expected, got, strict=True):
        assert theirs.keys() == ours.keys()
        assert all(torch.equal(theirs[key], ours[key]) for key in theirs)
    wrong = as_batch(batch(seed=2)[1])
    other, _ = losses_and_gradients(copy.deepcopy(model), inputs, wrong)
    assert (alpha == 1 and loss_kd == "LogitMSELoss") == all(
        torch.equal(other[key], got[0][key]) for key in other
    )


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_metrics_of_the_head_stay(alpha):
    inputs, samples = batch()
    model = build(distiller(student=student_with(cal_acc=True, topk=(1, 2)), alpha=alpha))
    expected = model(inputs, samples, mode="loss")
    got = model(inputs, as_batch(samples), mode="loss")
    assert {"accuracy_top-1", "accuracy_top-2"} < set(got)
    assert str(got) == str(expected)


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_another_head_gets_samples(alpha, made):
    inputs, samples = batch()
    whole = as_batch(samples)
    model = build(distiller(alpha=alpha))
    model.student.head = OwnHead(4)
    expected, _ = losses_and_gradients(copy.deepcopy(model), inputs, samples)
    made.clear()
    got, _ = losses_and_gradients(model, inputs, whole)
    assert len(made) == len(samples)
    assert all(torch.equal(expected[key], got[key]) for key in expected)
    assert not model.student.head._forward_hooks


def test_samples_that_somebody_changed_are_looked_at():
    """mmpretrain's preprocessor writes MixUp's scores into the samples of a batch."""
    inputs, samples = batch()
    whole, mixed = as_batch(samples), torch.full((4,), 0.25)
    for sample in whole:
        sample.set_gt_score(mixed)
    soft = student_with(loss=dict(type="mmpretrain.CrossEntropyLoss", use_soft=True))
    model = build(distiller(student=soft, alpha=0.5))
    losses = model(inputs, whole, mode="loss")
    expected = nn.functional.cross_entropy(model(inputs), mixed.expand(6, 4))
    torch.testing.assert_close(losses["ce"], expected.detach())
    hard = build(distiller(alpha=1.0, loss_kd=dict(type="mmkd_logit.DKDLoss")))
    with pytest.raises(ValueError, match="mixed ones after MixUp"):
        hard(inputs, whole, mode="loss")


def test_a_step_makes_no_object_and_alpha_zero_is_the_plain_student(made):
    inputs, samples = batch()
    whole = as_batch(samples)
    models = [build(distiller(alpha=0.0)), build(wrn())]
    for model in models:  # mmpretrain's makes the samples
        model.data_preprocessor = BaseDataPreprocessor()
    made.clear()
    numbers = []
    for model, given in zip(models, (whole, samples), strict=True):
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        for _ in range(2):
            model.train_step(dict(inputs=inputs, data_samples=given), wrapper)
        numbers.append(len(made))
    assert numbers[0] == 0 < numbers[1]
    plain = models[1].state_dict()
    for key, value in models[0].state_dict().items():
        assert torch.equal(value, plain[key])


@pytest.mark.parametrize(
    ("alpha", "loss_kd"),
    [
        (0.0, dict(type="mmkd_logit.LogitMSELoss")),
        (0.9, dict(type="mmkd_logit.ScaledKLDivLoss", tau=4)),
        (1.0, dict(type="mmkd_logit.DKDLoss")),
    ],
)
def test_a_step_is_one_graph(alpha, loss_kd):
    inputs, samples = batch()
    whole = as_batch(samples)
    model = build(distiller(alpha=alpha, loss_kd=loss_kd))
    model.prepare(model.teachers)
    expected, gradients = losses_and_gradients(copy.deepcopy(model), inputs, whole)
    torch._dynamo.reset()
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph

    def loss_of(inputs, whole):
        losses = model.loss(inputs, whole)
        return model.parse_losses(losses)[0], losses

    loss, losses = torch.compile(loss_of, backend=backend)(inputs, whole)
    loss.backward()
    if digit_version(torch.__version__) >= digit_version("2.7.0"):
        assert len(graphs) == 1
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name])
