"""Losses that need labels, through the distiller."""

import numpy as np
import pytest
import torch
from mmengine.registry import MODELS
from networks import batch, build, distiller, raw_batch, wrn

from mmkd_logit.losses import DKDLoss

DKD = dict(type="mmkd_logit.DKDLoss", tau=2)
PREPROCESSOR = dict(num_classes=4, mean=[128.0] * 3, std=[64.0] * 3)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("wrapped", [False, True])
def test_labels_reach_the_loss(alpha, wrapped):
    loss = dict(type="mmkd_logit.LogitStandardization", loss=DKD) if wrapped else DKD
    model = build(distiller(loss_kd=loss, alpha=alpha))
    inputs, samples = batch()
    losses = model(inputs, samples, mode="loss")
    labels = torch.cat([sample.gt_label for sample in samples])
    want = MODELS.build(loss)(model.student(inputs), model.teachers[0](inputs), labels)
    torch.testing.assert_close(losses["kd"], want)
    torch.testing.assert_close(losses["loss_kd"], alpha * want)
    others = [s.clone().set_gt_label((int(s.gt_label) + 1) % 4) for s in samples]
    assert not torch.isclose(model(inputs, others, mode="loss")["kd"], want, rtol=1e-3)


@pytest.mark.parametrize("augment", ["Mixup", "CutMix"])
def test_mixed_labels_are_refused(augment):
    augments = dict(augments=dict(type=augment, alpha=1.0))
    model = build(
        distiller(student=wrn(train_cfg=augments), loss_kd=DKD, data_preprocessor=PREPROCESSOR)
    )
    np.random.seed(0)  # now and then CutMix cuts nothing out, and labels stay whole
    data = model.data_preprocessor(raw_batch(), training=True)
    with pytest.raises(
        ValueError, match=r"mixed ones after MixUp or CutMix; .*train_cfg\.augments"
    ):
        model(**data, mode="loss")


def test_one_hot_scores_are_labels():
    preprocessor = dict(PREPROCESSOR, to_onehot=True)
    model = build(distiller(loss_kd=DKD, data_preprocessor=preprocessor))
    data = model.data_preprocessor(raw_batch(), training=True)
    assert data["data_samples"][0].gt_score.tolist().count(1) == 1
    losses = model(**data, mode="loss")
    labels = torch.cat([sample.gt_label for sample in data["data_samples"]])
    u, v = model.student(data["inputs"]), model.teachers[0](data["inputs"])
    torch.testing.assert_close(losses["kd"], DKDLoss(2)(u, v, labels))


def test_no_labels():
    model = build(distiller(loss_kd=DKD))
    inputs, samples = batch()
    with pytest.raises(ValueError, match="needs the class of each sample, got no data_samples"):
        model(inputs, None, mode="loss")
    del samples[2].gt_label
    with pytest.raises(ValueError, match="got gt_label None"):
        model(inputs, samples, mode="loss")
