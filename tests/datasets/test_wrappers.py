"""Our wrappers inside and around those of MMEngine and mmpretrain."""

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner

from mmkd_logit.datasets import Digits, InMemoryDataset, SampleKey, SeededDataset, SeededSampler
from mmkd_logit.datasets.wrapper import describe_data

PACK = [dict(type="mmpretrain.PackInputs")]
CROPS = [dict(type="mmpretrain.RandomCrop", crop_size=8, padding=2), *PACK]
DIGITS = dict(type="mmkd_logit.Digits", indices=60, pipeline=PACK)
NOISY = dict(type="mmkd_logit.NoisyLabelDataset", kind="symmetric", rate=0.4, dataset=DIGITS)
OURS = {
    "noisy": NOISY,
    "part": dict(type="mmkd_logit.DataSubset", per_class=0.5, dataset=DIGITS),
    "seeded": dict(type="mmkd_logit.SeededDataset", dataset=DIGITS),
    "memory": dict(type="mmkd_logit.InMemoryDataset", dataset=NOISY),
}
AROUND = {
    "fold": lambda dataset: dict(type="KFoldDataset", num_splits=3, fold=1, dataset=dataset),
    "joined": lambda dataset: dict(type="ConcatDataset", datasets=[dataset, DIGITS]),
    "repeated": lambda dataset: dict(type="RepeatDataset", times=2, dataset=dataset),
    "balanced": lambda dataset: dict(
        type="ClassBalancedDataset", oversample_thr=0.3, dataset=dataset
    ),
}


@pytest.fixture(autouse=True)
def scope():
    init_default_scope("mmpretrain")


def build(cfg):
    return DATASETS.build(cfg)


def content(dataset, index):
    data = dataset[index]
    sample = data["data_samples"]
    return data["inputs"].numpy().tobytes(), int(sample.gt_label), sample.get("clean_label")


def contents(dataset):
    return [content(dataset, index) for index in range(len(dataset))]


@pytest.mark.parametrize("other", AROUND)
@pytest.mark.parametrize("ours", OURS)
def test_others_around_ours(ours, other):
    dataset, alone = build(AROUND[other](OURS[ours])), contents(build(OURS[ours]))
    size = len(alone)
    if other == "fold":
        alone = alone[: size // 3] + alone[size * 2 // 3 :]
    elif other == "joined":
        alone = alone + contents(build(DIGITS))
    elif other == "repeated":
        alone = alone * 2
    else:
        alone = [alone[index] for index in dataset.repeat_indices]
        assert len(alone) > size
    assert contents(dataset) == alone
    assert describe_data(dataset) == build(OURS[ours]).description


@pytest.mark.parametrize("other", AROUND)
@pytest.mark.parametrize("ours", OURS)
def test_ours_around_others(ours, other):
    plain = build(AROUND[other](DIGITS))
    dataset = build(dict(OURS[ours], dataset=AROUND[other](DIGITS)))
    assert len(dataset) < len(plain) if ours == "part" else len(dataset) == len(plain)
    for index in (0, len(dataset) - 1):
        image, label, clean = content(dataset, index)
        info = dataset.get_data_info(index)
        assert label == info["gt_label"]
        assert image == info["img"].transpose(2, 0, 1).tobytes()
        assert clean == info.get("clean_label")
    if ours in ("seeded", "memory"):
        assert contents(dataset) == contents(plain)


def test_a_part_as_base_dataset_gives_it():
    inner, whole = Digits(indices=60, pipeline=PACK), build(NOISY)
    for indices in (7, -7, [5, 3, -1], 0):
        part, expected = whole.get_subset(indices), inner.get_subset(indices)
        infos = [expected.get_data_info(i) for i in range(len(expected))]
        assert part.get_clean_labels().tolist() == [info["gt_label"] for info in infos]
        assert [part.get_data_info(i)["gt_label"] for i in range(len(part))] == list(
            part.get_gt_labels()
        )
    assert len(whole) == 60
    whole.get_subset_([5, 3])
    whole.get_subset_([1])
    assert whole.get_data_info(0)["sample_idx"] == 3
    assert content(whole, 0)[2] == inner.get_data_info(3)["gt_label"]


@pytest.mark.parametrize("cls", [InMemoryDataset, SeededDataset])
def test_a_fold_is_augmented_as_the_whole(cls):
    whole = cls(dict(DIGITS, pipeline=CROPS))
    fold = build(AROUND["fold"](dict(type=cls, dataset=dict(DIGITS, pipeline=CROPS))))
    for index, place in ((0, 0), (19, 19), (20, 40), (39, 59)):
        assert content(fold, SampleKey(0, 3, index)) == content(whole, SampleKey(0, 3, place))
    dataset = cls(dict(type="ConcatDataset", datasets=[dict(DIGITS, pipeline=CROPS)] * 2))
    first, second = (content(dataset, SampleKey(0, 3, index)) for index in (5, 65))
    assert first == content(whole, SampleKey(0, 3, 5)) != second  # the same image, other pictures


def test_a_run_reads_a_joined_and_seeded_data_set():
    """As train_dataloader: the keys of the sampler pass."""
    joined(NOISY, DIGITS)


def test_a_run_reads_noisy_data_behind_clean_ones():
    joined(DIGITS, NOISY)


def joined(*parts):
    dataset = dict(type="ConcatDataset", datasets=list(parts))
    loader = Runner.build_dataloader(
        dict(
            dataset=dict(type="mmkd_logit.InMemoryDataset", dataset=dataset),
            sampler=dict(type="mmkd_logit.SeededSampler", sampler=dict(type="DefaultSampler")),
            collate_fn=dict(type="mmkd_logit.batch_collate"),
            batch_size=120,
            num_batch_per_epoch=1,
        ),
        seed=0,
    )
    (samples,) = (batch["data_samples"] for batch in loader)
    clean = np.array([sample.clean_label for sample in samples])
    labels = samples.gt_label.numpy()
    assert (labels != clean).mean() == 0.2
    assert describe_data(loader.dataset)["label_noise"]["samples"] == 60


def test_several_noises_are_described_together():
    joined = describe_data(build(dict(type="ConcatDataset", datasets=[NOISY, dict(NOISY, seed=1)])))
    parts = [build(each).description["label_noise"] for each in (NOISY, dict(NOISY, seed=1))]
    assert joined["label_noise"]["parts"] == parts
    assert joined["label_noise"]["samples"] == 120
    again = describe_data(build(dict(type="ConcatDataset", datasets=[NOISY, NOISY])))
    assert again["label_noise"]["sha256"] != joined["label_noise"]["sha256"]


MEMORY = dict(type="mmkd_logit.InMemoryDataset", dataset=DIGITS)
OTHER = dict(DIGITS, pipeline=CROPS)


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (
            dict(NOISY, dataset=AROUND["repeated"](MEMORY)),
            "put mmkd_logit.InMemoryDataset around RepeatDataset, and NoisyLabelDataset around b",
        ),
        (
            dict(NOISY, dataset=dict(type="ConcatDataset", datasets=[DIGITS, OTHER])),
            "different pipelines; .* or put a NoisyLabelDataset around each of them",
        ),
        (
            dict(NOISY, dataset=AROUND["fold"](DIGITS) | dict(test_mode=True)),
            "test_mode=True: these data are for testing",
        ),
        (dict(NOISY, dataset=AROUND["joined"](NOISY)), "noisy labels already; noise it once"),
    ],
)
def test_orders_that_do_not_work_name_those_that_do(cfg, message):
    with pytest.raises(ValueError, match=message):
        build(cfg)


@pytest.mark.parametrize("cfg", [DIGITS, *(around(OTHER) for around in list(AROUND.values())[1:])])
def test_keys_of_a_sampler_need_one_of_ours_outermost(cfg):
    name = cfg["type"].rpartition(".")[-1]
    with pytest.raises(ValueError, match=f"to {name}: put mmkd_logit.SeededDataset or .* around"):
        SeededSampler(build(cfg), dict(type="DefaultSampler"), seed=0)
