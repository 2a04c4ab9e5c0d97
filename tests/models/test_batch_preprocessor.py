import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample
from networks import build, raw_batch, wrn
from pictures import keys_of
from runs import digits_student, run_config

from mmkd_logit.datasets import InMemoryDataset, NoisyLabelDataset, SampleBatch
from mmkd_logit.models import BatchPreprocessor, FrozenTeacher

CIFAR = dict(mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418], num_classes=100)
SETTINGS = {
    "cifar": CIFAR,
    "bgr": dict(CIFAR, to_rgb=True),
    "padded": dict(CIFAR, pad_size_divisor=5, pad_value=7),
    "nothing": {},
    "bgr alone": dict(to_rgb=True),
}


def a_batch(n=6, channels=3, clean=True, size=8):
    raw = raw_batch(n, channels=channels, size=size)
    labels = torch.cat([sample.gt_label for sample in raw["data_samples"]])
    samples = SampleBatch(
        labels, np.arange(n), (size, size), clean_label=labels.flip(0) if clean else None
    )
    return dict(inputs=raw["inputs"], data_samples=samples)


def all_colours():
    """Each of the 256 values in each channel, at places of its own."""
    values = torch.arange(256, dtype=torch.uint8)
    return (
        torch.stack([values, values.roll(1), values.flip(0)], 1)
        .view(4, 8, 8, 3)
        .permute(0, 3, 1, 2)
        .contiguous()
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SETTINGS)
def test_images_equal_the_parents_bit_for_bit(name, training):
    data = dict(a_batch(4), inputs=all_colours())
    kept = data["inputs"].clone()
    ours = BatchPreprocessor(**SETTINGS[name])(data, training)
    parent = ClsDataPreprocessor(**SETTINGS[name])
    theirs = parent(dict(inputs=kept, data_samples=data["data_samples"].as_list()), training)
    assert torch.equal(ours["inputs"], theirs["inputs"])
    assert ours["inputs"].dtype == torch.float32
    assert ours["inputs"].is_contiguous()
    assert torch.equal(data["inputs"], kept)


@pytest.mark.parametrize("kind", [ClsDataPreprocessor, BatchPreprocessor])
def test_batches_of_other_data_sets_are_copied_without_waiting(monkeypatch, kind):
    """As those of ImageNet; mmpretrain's waits, and no config says otherwise."""
    waits, to = [], torch.Tensor.to

    def note(self, *args, **kwargs):
        if "non_blocking" in kwargs:
            waits.append(not kwargs["non_blocking"])
        return to(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "to", note)
    kind(**CIFAR)(raw_batch(4), True)
    assert waits
    assert set(waits) == {kind is ClsDataPreprocessor}


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_images_of_the_loader_are_not_written_to(dtype):
    data = a_batch()
    data["inputs"] = data["inputs"].to(dtype)
    kept = data["inputs"].clone()
    BatchPreprocessor(**CIFAR)(data, True)
    assert torch.equal(data["inputs"], kept)


def test_training_keeps_the_batch_and_evaluation_makes_a_list():
    data = a_batch()
    samples = BatchPreprocessor(**CIFAR)(data, True)["data_samples"]
    assert isinstance(samples, SampleBatch)
    assert torch.equal(samples.gt_label, data["data_samples"].gt_label)
    assert samples.views is data["data_samples"].views
    assert not samples._made  # not one object for a sample
    listed = BatchPreprocessor(**CIFAR)(data, False)["data_samples"]
    assert isinstance(listed, list)
    assert [type(sample) for sample in listed] == [DataSample] * 6
    for index, sample in enumerate(listed):
        assert sample.gt_label.item() == data["data_samples"].gt_label[index]
        assert sample.clean_label == int(data["data_samples"].clean_label[index])
        assert sample.sample_idx == index
        assert sample.img_shape == (8, 8)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("more", [dict(to_onehot=True), "mixup"])
def test_scores_instead_of_labels(more, training):
    if more == "mixup":
        more = dict(batch_augments=dict(augments=dict(type="mmpretrain.Mixup", alpha=0.8)))
    settings = dict(CIFAR, num_classes=4, **more)
    data = a_batch()
    ours, theirs = BatchPreprocessor(**settings), ClsDataPreprocessor(**settings)
    np.random.seed(3)
    torch.manual_seed(3)
    found = ours(data, training)
    np.random.seed(3)
    torch.manual_seed(3)
    expected = theirs(dict(data, data_samples=a_batch()["data_samples"].as_list()), training)
    assert isinstance(found["data_samples"], list)
    assert torch.equal(found["inputs"], expected["inputs"])
    for mine, other in zip(found["data_samples"], expected["data_samples"], strict=True):
        assert torch.equal(mine.gt_score, other.gt_score)
        assert mine.sample_idx == other.sample_idx
    if training and "batch_augments" in settings:
        assert not torch.equal(found["inputs"], BatchPreprocessor(**CIFAR)(data, True)["inputs"])


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_other_batches_are_the_parents(joined, training):
    data = raw_batch()
    data["inputs"] = data["inputs"] if joined else list(data["inputs"])
    ours = BatchPreprocessor(**CIFAR)(data, training)
    theirs = ClsDataPreprocessor(**CIFAR)(data, training)
    assert torch.equal(ours["inputs"], theirs["inputs"])
    assert ours["data_samples"] is theirs["data_samples"] is data["data_samples"]
    alone = BatchPreprocessor(**CIFAR)(dict(inputs=data["inputs"]), training)
    assert alone["data_samples"] is None
    assert torch.equal(alone["inputs"], theirs["inputs"])


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("objects", [True, False])
def test_channels_last(name, objects):
    data = a_batch(4)
    if objects:
        data["data_samples"] = data["data_samples"].as_list()
    plain = BatchPreprocessor(**SETTINGS[name])(data, True)["inputs"]
    last = BatchPreprocessor(channels_last=True, **SETTINGS[name])(data, True)["inputs"]
    assert torch.equal(last, plain)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    assert plain.is_contiguous()


def test_in_a_classifier_and_for_a_teacher():
    init_default_scope("mmpretrain")
    cfg = dict(CIFAR, type="mmkd_logit.BatchPreprocessor", num_classes=4)
    model = build(wrn(data_preprocessor=cfg))
    assert type(model.data_preprocessor) is BatchPreprocessor
    plain = build(wrn(data_preprocessor=dict(cfg, type="ClsDataPreprocessor")))
    teacher = FrozenTeacher(dict(config=wrn(data_preprocessor=cfg), checkpoint=None))
    teacher.set_input_normalization(model.data_preprocessor)
    teacher.build()
    assert teacher._conversion is None
    batch = a_batch()
    ours = model(**model.data_preprocessor(batch, True), mode="loss")["loss"]
    listed = dict(batch, data_samples=a_batch()["data_samples"].as_list())
    theirs = plain(**plain.data_preprocessor(listed, True), mode="loss")["loss"]
    assert torch.equal(ours, theirs)
    predicted = model(**model.data_preprocessor(batch, False), mode="predict")
    assert all("pred_score" in sample and "gt_label" in sample for sample in predicted)


def test_metrics_are_those_of_mmpretrains_pipeline(tmp_path):
    from mmengine.runner import Runner

    metrics = []
    for memory in (False, True):
        cfg = run_config(digits_student(), tmp_path / str(memory), epochs=1, images=100)
        if memory:
            cfg.test_dataloader.dataset = dict(
                type="mmkd_logit.InMemoryDataset", dataset=cfg.test_dataloader.dataset
            )
            cfg.test_dataloader.collate_fn = dict(type="mmkd_logit.batch_collate")
            cfg.data_preprocessor.type = "mmkd_logit.BatchPreprocessor"
        cfg.test_evaluator = [
            dict(type="Accuracy", topk=(1, 5)),
            dict(type="mmkd_logit.ExpectedCalibrationError"),
        ]
        runner = Runner.from_cfg(cfg)
        runner.model.init_weights()
        torch.manual_seed(0)
        for parameter in runner.model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        metrics.append(runner.test())
    assert metrics[0] == metrics[1]
    assert len(metrics[0]) >= 3


def test_labels_of_noisy_data_in_memory():
    init_default_scope("mmpretrain")
    crop = dict(type="RandomCrop", crop_size=8, padding=1)
    digits = dict(type="mmkd_logit.Digits", pipeline=[crop, dict(type="PackInputs")])
    dataset = NoisyLabelDataset(InMemoryDataset(digits), kind="symmetric", rate=0.5)
    batch = dataset.__getitems__(keys_of(range(200)))
    preprocessor = MODELS.build(dict(type="mmkd_logit.BatchPreprocessor", mean=[78.0], std=[96.0]))
    samples = preprocessor(batch, True)["data_samples"]
    assert samples.gt_label.tolist() == dataset.get_gt_labels()[:200].tolist()
    assert [s.clean_label for s in samples] == dataset.get_clean_labels()[:200].tolist()
    assert samples.views is batch["data_samples"].views


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    data = dict(a_batch(4), inputs=all_colours())
    ours, parent = BatchPreprocessor(**CIFAR).cuda(), ClsDataPreprocessor(**CIFAR).cuda()
    ours, parent = ours.to("cuda"), parent.to("cuda")
    found = ours(data, True)
    expected = parent(dict(data, data_samples=a_batch(4)["data_samples"].as_list()), True)
    assert torch.equal(found["inputs"], expected["inputs"])
    assert found["data_samples"].gt_label.is_cuda
