"""Networks of one's own as students and teachers, by MMEngine's contract alone."""

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from networks import batch, build, wrn
from torch import nn

from mmkd_logit.hooks.networks import last_linear
from mmkd_logit.models import LogitDistiller

MSE = dict(type="mmkd_logit.LogitMSELoss")


class Own(BaseModel):
    """A network whose attributes have the names of other things."""

    def __init__(self, output=lambda logits: logits, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Flatten()
        self.dropout = nn.Dropout(0.5)
        self.classify = nn.ModuleDict(dict(last=nn.Linear(288, 4)))
        self.output = output

    def forward(self, inputs, data_samples=None, mode="tensor"):
        logits = self.classify["last"](self.dropout(self.head(self.model(inputs))))
        if mode == "loss":
            labels = torch.cat([sample.gt_label for sample in data_samples])
            return dict(loss=F.cross_entropy(logits, labels), aux_loss=logits.square().mean())
        return self.output(logits)


def losses_of(model, seed=5):
    torch.manual_seed(seed)
    return model(*batch(), mode="loss")


def own(**kwargs):
    torch.manual_seed(0)
    return Own(**kwargs)


@pytest.mark.parametrize("alpha", [0, 0.3, 1])
def test_any_base_model_distils(alpha):
    teacher = build(wrn())
    model = LogitDistiller(own(), teacher, MSE, alpha)
    plain, inputs = own(), batch()[0]
    seen = []
    plain.classify["last"].register_forward_hook(lambda m, a, output: seen.append(output))
    own_losses = losses_of(plain)
    v = teacher.eval()(inputs)
    losses = losses_of(model)
    if alpha < 1:
        assert losses["ce"] == own_losses["loss"] + own_losses["aux_loss"]
    if alpha > 0:
        torch.testing.assert_close(losses["kd"], F.mse_loss(seen[0], v))
    sum(value for key, value in losses.items() if "loss" in key).backward()
    assert model.classify["last"].weight.grad.abs().sum() > 0
    assert last_linear(model) is (model.classify["last"] if 0 < alpha < 1 else None)
    # Looking for the logits has left no trace.
    assert torch.equal(model.model[1].running_mean, plain.model[1].running_mean)
    assert not any(m._forward_hooks for m in model.student.modules())
    model.eval(), plain.eval()
    assert torch.equal(model(inputs), plain(inputs))


@pytest.mark.parametrize("alpha", [0.3, 1])
@pytest.mark.parametrize("output", [lambda x: (x, x), lambda x: dict(scores=x), lambda x: 2 * x])
def test_logits_that_must_be_named(alpha, output):
    if alpha < 1 or not torch.is_tensor(output(torch.ones(1))):
        with pytest.raises(ValueError, match=r"name the module that gives them, as in logits='fc'"):
            losses_of(LogitDistiller(own(output=output), build(wrn()), MSE, alpha))
    named = LogitDistiller(own(output=output), build(wrn()), MSE, alpha, logits="classify.last")
    plain = LogitDistiller(own(), build(wrn()), MSE, alpha)
    assert losses_of(named)["kd"] == losses_of(plain)["kd"]
    with pytest.raises(ValueError, match=r"the student has no module 'fc'.* classify"):
        LogitDistiller(own(), build(wrn()), MSE, logits="fc")


def test_named_logits_that_the_loss_does_not_run():
    student = own()
    student.unused = nn.Linear(2, 2)
    model = LogitDistiller(student, build(wrn()), MSE, 0.5, logits="unused")
    with pytest.raises(ValueError, match="does not run its unused"):
        losses_of(model)


def test_a_module_that_is_no_base_model():
    with pytest.raises(ValueError, match=r"Sequential is no mmengine\.model\.BaseModel; .*forward"):
        LogitDistiller(nn.Sequential(nn.Linear(2, 2)), build(wrn()), MSE)


@MODELS.register_module(force=True)
class Registered(Own):
    """By a config, with the data preprocessor that the Runner hands on."""


def test_a_config_of_a_base_model():
    preprocessor = dict(type="mmpretrain.ClsDataPreprocessor", mean=[1.0], std=[2.0])
    cfg = dict(
        type="mmkd_logit.LogitDistiller",
        student=dict(type="Registered"),
        teacher=dict(config=dict(type="Registered"), checkpoint=None),
        loss_kd=MSE,
        weights=dict(ce=0.1, kd=9),
        data_preprocessor=preprocessor,
    )
    model = build(cfg)
    losses = losses_of(model)
    assert model.data_preprocessor.std.item() == 2
    torch.testing.assert_close(losses["loss_kd"], 9 * losses["kd"])
    torch.testing.assert_close(losses["loss_ce"] + losses["aux_loss"], 0.1 * losses["ce"])


def test_its_features_are_distilled_as_well():
    """What finds the logits is no pass of the network that is watched."""
    term = dict(student="model", teacher="model", loss=nn.MSELoss())
    model = LogitDistiller(own(), own(), MSE, 0.5, feature_kd=[term])
    assert {"loss_ce", "loss_kd"} < losses_of(model).keys()
