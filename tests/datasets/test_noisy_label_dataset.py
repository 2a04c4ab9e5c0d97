import json
import pickle

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from mmpretrain.datasets import BaseDataset
from mmpretrain.structures import DataSample

from mmkd_logit.datasets import DataSubset, Digits, LabelNoise, NoisyLabelDataset
from mmkd_logit.datasets.label_noise import hash_labels

DIGITS = dict(type="mmkd_logit.Digits", pipeline=[dict(type="mmpretrain.PackInputs")])
SYM40 = dict(kind="symmetric", rate=0.4)
SOURCE_LABELS = np.array([item["gt_label"] for item in Digits()])


def noisy(dataset=DIGITS, **settings):
    return NoisyLabelDataset(dataset, **{**SYM40, **settings})


class Many(BaseDataset):
    """Samples with what a test says."""

    def __init__(self, labels, classes=(*"abc",), **kwargs):
        self.given = labels
        super().__init__(ann_file="", metainfo=classes and dict(classes=classes), **kwargs)

    def load_data_list(self):
        image = np.zeros((2, 2, 1), dtype=np.uint8)
        return [dict(img=image, **label) for label in self.given]


def many(*labels, **kwargs):
    return Many([dict(gt_label=label) for label in labels], **kwargs)


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


def test_without_packing_the_label_is_in_the_dict():
    dataset = noisy(Digits())
    assert dataset[1]["clean_label"] == SOURCE_LABELS[1]
    assert dataset[1]["gt_label"] == dataset.get_gt_labels()[1]


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


def loader_of(dataset, workers, collate="default_collate", shuffle=False):
    init_default_scope("mmpretrain") if DefaultScope.get_current_instance() is None else None
    return Runner.build_dataloader(
        dict(
            batch_size=64,
            num_workers=workers,
            persistent_workers=workers > 0,
            dataset=dict(type="mmkd_logit.NoisyLabelDataset", dataset=dataset, **SYM40),
            sampler=dict(type="DefaultSampler", shuffle=shuffle),
            collate_fn=dict(type=collate),
        ),
        seed=3,
    )


@pytest.mark.parametrize(
    ("workers", "collate", "shuffle"),
    [(0, "default_collate", False), (2, "pseudo_collate", True)],
)
def test_workers_and_order_change_nothing(workers, collate, shuffle):
    loader = loader_of(DIGITS, workers, collate, shuffle)
    expected = LabelNoise(**SYM40).apply(SOURCE_LABELS, 10)
    orders = []
    for _ in range(2):  # epochs
        samples = [sample for batch in loader for sample in batch["data_samples"]]
        order = [sample.sample_idx for sample in samples]
        assert sorted(order) == list(range(901))
        assert [sample.gt_label.item() for sample in samples] == expected[order].tolist()
        assert [sample.clean_label for sample in samples] == SOURCE_LABELS[order].tolist()
        loader.sampler.set_epoch(1)
        orders.append(order)
    assert (orders[0] != orders[1]) == shuffle


def test_pickled_as_for_spawned_workers():
    dataset = noisy()
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.description == dataset.description
    assert copy[3]["data_samples"].gt_label == dataset[3]["data_samples"].gt_label


@pytest.mark.parametrize("collate", [default_collate, pseudo_collate])
def test_through_a_model_the_clean_label_arrives(collate):
    from networks import build
    from runs import digits_student

    dataset = noisy()
    model = build(digits_student(data_preprocessor=dict(mean=[78.0], std=[96.0], num_classes=10)))
    results = model.test_step(collate([dataset[i] for i in range(4)]))
    assert [sample.to_dict()["clean_label"] for sample in results] == SOURCE_LABELS[:4].tolist()


class Unreadable:
    """A transform that cannot read samples of one label, and packs the others."""

    def __init__(self, label):
        self.label = label

    def __call__(self, info):
        if info["clean_label"] == self.label:
            return None
        return dict(data_samples=DataSample().set_gt_label(info["gt_label"]), info=info)


def test_a_replaced_sample_brings_its_own_labels():
    dataset = noisy(many(*[0, 1, 2] * 20, pipeline=[Unreadable(0)]), rate=0.5)
    for index in range(0, 60, 3):
        data = dataset[index]
        place = data["info"]["sample_idx"]
        assert place % 3 != 0
        assert data["data_samples"].clean_label == place % 3
        assert data["data_samples"].gt_label == dataset.get_gt_labels()[place]


def test_a_sample_that_cannot_be_read_is_an_error_in_test_mode():
    dataset = noisy(many(0, 1, test_mode=True, pipeline=[Unreadable(0)]), on_test=True)
    assert dataset[1]["data_samples"].clean_label == 1
    with pytest.raises(ValueError, match="the pipeline gave no sample"):
        dataset[0]
    hopeless = noisy(many(0, 0, pipeline=[Unreadable(0)], max_refetch=3))
    with pytest.raises(ValueError, match="the pipeline gave no sample"):
        hopeless[0]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (dict(DIGITS, split="test"), "split 'test': these data are for testing"),
        (dict(DIGITS, split="val"), "split 'val': these data are for testing"),
        (dict(DIGITS, test_mode=True), "test_mode=True: these data are for testing"),
        (
            dict(type="mmkd_logit.DataSubset", dataset=dict(DIGITS, split="test"), per_class=0.5),
            "split 'test': .* say on_test=True",
        ),
    ],
)
def test_test_data_stay_clean_unless_told(dataset, message):
    with pytest.raises(ValueError, match=message):
        noisy(dataset)
    assert noisy(dataset, on_test=True).description["label_noise"]["realised_rate"] > 0.3


def test_noise_comes_once():
    for inner in (noisy(), DataSubset(noisy(), per_class=0.5)):
        with pytest.raises(ValueError, match="has noisy labels already; noise it once"):
            noisy(inner)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (many([0, 1], [2]), r"gt_label of sample 0 is \[0, 1\] \(data with several labels"),
        (many(0, np.zeros(3, dtype=int)), "gt_label of sample 1 is"),
        (many(0, 1.5), "gt_label of sample 1 is 1.5"),
        (Many([dict()]), "gt_label of sample 0 is None"),
        (many(0, 3), "the data set's labels must be from 0 to 2, got 3"),
        (many(0, 1, classes=None), "the data set names no classes; say num_classes=K"),
        ([], "wraps a BaseDataset, .* got list"),
        (torch.utils.data.TensorDataset(), "wraps a BaseDataset, .* got TensorDataset"),
    ],
)
def test_data_that_cannot_be_noised(dataset, message):
    with pytest.raises(ValueError, match=message):
        noisy(dataset)


def test_data_with_samples_of_their_own_making():
    class Own(Many):
        def __getitem__(self, index):
            return "mine"

    with pytest.raises(ValueError, match="Own makes its samples in a way of its own"):
        noisy(Own([dict(gt_label=0)]))


def test_the_number_of_classes():
    assert noisy(many(0, 1, classes=None), num_classes=50, rate=1).get_gt_labels().max() > 1


def test_wrong_settings_before_anything_is_read():
    for settings, message in [
        (dict(rate=2), "rate must be a number"),
        (dict(kind="file"), "leave out rate"),
        (dict(kind="pairs"), "did you mean pair"),
        (dict(num_classes=True), "num_classes must be an integer from 1 on"),
        (dict(on_test="no"), "on_test must be True or False"),
    ]:
        with pytest.raises(ValueError, match=message):
            noisy("not even a data set", **settings)


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
