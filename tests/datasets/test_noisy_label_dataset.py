import json

import numpy as np
import torch

from mmkd_logit.datasets import DataSubset, Digits, LabelNoise, NoisyLabelDataset
from mmkd_logit.datasets.label_noise import hash_labels

DIGITS = dict(type="mmkd_logit.Digits", pipeline=[dict(type="mmpretrain.PackInputs")])
SYM40 = dict(kind="symmetric", rate=0.4)
SOURCE_LABELS = np.array([item["gt_label"] for item in Digits()])


def noisy(dataset=DIGITS, **settings):
    return NoisyLabelDataset(dataset, **{**SYM40, **settings})


def test_labels_of_the_samples():
    dataset, plain = noisy(), Digits()
    expected = LabelNoise(**SYM40).apply(SOURCE_LABELS, 10)
    assert (dataset.get_gt_labels() == expected).all()
    assert (dataset.get_clean_labels() == SOURCE_LABELS).all()
    assert len(dataset) == len(plain) == 901
    for index in (0, 1, 500, 900, -1):
        info, sample = dataset.get_data_info(index), dataset[index]["data_samples"]
        assert info["gt_label"] == sample.gt_label.item() == expected[index]
        assert info["clean_label"] == sample.clean_label == SOURCE_LABELS[index]
        assert "clean_label" in sample.metainfo
        assert dataset.get_cat_ids(index) == [expected[index]]
        assert info["sample_idx"] == sample.sample_idx == index % 901
        assert (info["img"] == plain.get_data_info(index)["img"]).all()
        assert torch.equal(dataset[index]["inputs"][0], torch.tensor(info["img"][..., 0]))
    assert not (expected == SOURCE_LABELS).all()
    assert plain.get_data_info(1)["gt_label"] == SOURCE_LABELS[1]


def test_what_samplers_and_hooks_ask_for():
    dataset, plain = noisy(), Digits()
    assert list(dataset.CLASSES) == list(plain.CLASSES)
    assert dataset.class_to_idx == plain.class_to_idx
    assert dataset.test_mode is False
    assert dataset.metainfo["classes"] == plain.metainfo["classes"]
    # Changing what is handed out changes nothing.
    dataset.description["label_noise"]["sha256"] = ""
    dataset.get_gt_labels()[:] = 0
    assert dataset.description["label_noise"]["sha256"] == hash_labels(dataset.get_gt_labels())


def test_metainfo_says_what_was_done():
    dataset = noisy(rate=0.6, seed=5)
    labels = dataset.get_gt_labels()
    assert dataset.metainfo == Digits().metainfo
    assert dataset.description["label_noise"] == dict(
        kind="symmetric",
        rate=0.6,
        realised_rate=(labels != SOURCE_LABELS).mean(),
        seed=5,
        per_class=True,
        file=None,
        key=None,
        samples=901,
        sha256=hash_labels(labels),
    )
    json.dumps(dataset.description["label_noise"])


def test_nothing_is_read_until_needed(monkeypatch):
    reads = []
    load = Digits.load_data_list
    monkeypatch.setattr(Digits, "load_data_list", lambda self: reads.append(1) or load(self))
    dataset = noisy(lazy_init=True)
    assert list(dataset.CLASSES) == list("0123456789")
    assert "label_noise" not in dataset.description
    around = DataSubset(dataset, per_class=0.5, lazy_init=True)
    assert not reads
    assert len(around) > 400
    assert "label_noise" in dataset.description
    dataset.full_init()
    assert len(reads) == 1
    noisy()
    assert len(reads) == 2  # once for each data set, also when it is eager


def test_human_labels_of_the_real_data(cifar100_root, cifarn_labels):
    """CIFAR-100N in the order of the published files: 40.20 % wrong, as its authors say."""
    cifar = dict(type="mmpretrain.CIFAR100", data_root=cifar100_root)
    settings = dict(file=cifarn_labels, key="c100_noisy", clean_key="c100_clean")
    dataset = NoisyLabelDataset(cifar, kind="file", **settings)
    assert dataset.description["label_noise"]["realised_rate"] == 0.402
    clean = dataset.get_clean_labels()
    labels = LabelNoise("symmetric", rate=0.4).apply(clean, 100)
    assert (np.bincount(clean[labels != clean]) == 200).all()
    # The labels of the measured runs.
    assert hash_labels(labels).startswith("a5d24ad3961bb5e3")
