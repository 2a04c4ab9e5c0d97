import mmcv
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, init_default_scope
from pictures import (
    CROP,
    FLIP,
    PACK,
    Pictures,
    keys_of,
    loader_of,
    same_pictures,
    seen,
    stock_picture,
)

from mmkd_logit.datasets import (
    DataSubset,
    Digits,
    InMemoryDataset,
    NoisyLabelDataset,
    SampleKey,
    augment,
)

IN_MEMORY = dict(
    type="mmkd_logit.InMemoryDataset",
    dataset=dict(
        type="mmkd_logit.Digits",
        pipeline=[
            dict(type="mmpretrain.RandomCrop", crop_size=8, padding=1),
            dict(type="mmpretrain.RandomFlip", prob=0.5),
            dict(type="mmpretrain.PackInputs"),
        ],
    ),
)


# -- pictures ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cifar100(cifar100_root):
    init_default_scope("mmpretrain")
    return DATASETS.build(
        dict(
            type="mmpretrain.CIFAR100",
            data_root=cifar100_root,
            split="train",
            indices=5000,
            pipeline=[CROP, FLIP, PACK],
        )
    )


@pytest.fixture(scope="module")
def cifar100_in_memory(cifar100):
    return InMemoryDataset(cifar100)


def test_cifar100_equals_mmpretrain_and_views_say_how(cifar100, cifar100_in_memory, monkeypatch):
    """The number of a view alone gives the parameters of mmpretrain's transforms."""
    indices = np.random.default_rng(0).choice(5000, 2000, replace=False)
    batch = cifar100_in_memory.__getitems__(keys_of(indices))
    views = batch["data_samples"].views
    assert (views.samples, views.per_sample) == (5000, 162)
    assert np.array_equal(views.index, indices)
    assert set(views.view) == set(range(162))
    expected = []
    for index, view in zip(indices.tolist(), views.view.tolist(), strict=True):
        place, flipped = divmod(view, 2)
        chosen = [divmod(place, 9), "horizontal" if flipped else None]
        expected.append(stock_picture(monkeypatch, cifar100, index, chosen))
    assert same_pictures(batch, expected)
    labels = [cifar100.get_data_info(int(index))["gt_label"] for index in indices]
    assert batch["data_samples"].gt_label.tolist() == labels


def flips(prob, direction):
    return dict(type="RandomFlip", prob=prob, direction=direction)


ANY = ["horizontal", "vertical", "diagonal"]
# With the number of places (top, left), or of flips, in the order of the views' numbers.
PIPELINES = {
    "crop": ([dict(type="RandomCrop", crop_size=5)], [4, 7]),
    "one side": ([dict(type="RandomCrop", crop_size=(8, 6))], [1, 6]),
    "two paddings": ([dict(type="RandomCrop", crop_size=8, padding=(3, 1))], [3, 10]),
    "four paddings": ([dict(type="RandomCrop", crop_size=9, padding=(1, 2, 3, 4))], [6, 7]),
    "number": ([dict(type="RandomCrop", crop_size=9, padding=2, pad_val=77)], [4, 7]),
    "colour": ([dict(type="RandomCrop", crop_size=9, padding=2, pad_val=(1, 2, 255))], [4, 7]),
    "if needed": (
        [dict(type="RandomCrop", crop_size=(13, 12), pad_if_needed=True, pad_val=9)],
        [2, 2],
    ),
    "if needed, too": (
        [dict(type="RandomCrop", crop_size=14, padding=1, pad_if_needed=True)],
        [1, 2],
    ),
    "vertical": ([flips(0.3, "vertical")], [2]),
    "diagonal": ([flips(0.5, "diagonal")], [2]),
    "directions": ([flips(0.9, ANY)], [4]),
    "probabilities": ([flips([0.1, 0.2, 0.6], ANY)], [4]),
    "always": ([flips(1.0, "horizontal")], [2]),
    "flip, crop": (
        [flips(0.5, ANY), dict(type="RandomCrop", crop_size=8, padding=1)],
        [4, 3, 6],
    ),
    "twice": (
        [dict(type="RandomCrop", crop_size=6, padding=1), dict(type="RandomCrop", crop_size=5)],
        [5, 8, 2, 2],
    ),
}


CHANNELS = {"colour": (3,), "grey": (1,), "flat": ()}


@pytest.mark.parametrize(
    ("name", "channels"),
    [*((name, "colour") for name in PIPELINES), ("number", "grey"), ("flip, crop", "flat")],
)
def test_pictures_equal_mmpretrain(name, channels, monkeypatch):
    pipeline, counts = PIPELINES[name]
    stock = Pictures(*[(8, 11, *CHANNELS[channels])] * 150, pipeline=[*pipeline, PACK])
    batch = InMemoryDataset(stock).__getitems__(keys_of(range(150)))
    views = batch["data_samples"].views
    assert views.per_sample == np.prod(counts)
    expected = []
    for index, view in enumerate(views.view):
        numbers = [int(number) for number in np.unravel_index(view, counts)]
        chosen = []
        for step in pipeline:
            if step["type"] == "RandomCrop":
                chosen.append((numbers.pop(0), numbers.pop(0)))
            else:
                chosen.append([None, *np.atleast_1d(step["direction"])][numbers.pop(0)])
        expected.append(stock_picture(monkeypatch, stock, index, chosen))
    assert same_pictures(batch, expected)
    assert batch["data_samples"].img_shape == tuple(batch["inputs"].shape[2:])


@pytest.mark.parametrize(
    ("prob", "direction", "shares"),
    [
        (0.3, "horizontal", [0.7, 0.3]),
        (1.0, "vertical", [0, 1]),
        (0.0, "vertical", [1, 0]),
        (0.9, ANY, [0.1, 0.3, 0.3, 0.3]),
        ([0.1, 0.2, 0.6], ANY, [0.1, 0.1, 0.2, 0.6]),
    ],
)
def test_flips_are_as_frequent_as_mmcvs(prob, direction, shares):
    """Out of 4,000 the standard error is at most 0.008."""
    dataset = InMemoryDataset(
        Pictures(*[(4, 4, 3)] * 4000, pipeline=[flips(prob, direction), PACK])
    )
    view = dataset.__getitems__(keys_of(range(4000)))["data_samples"].views.view
    found = np.bincount(view, minlength=len(shares)) / 4000
    assert found == pytest.approx(shares, abs=0.03)
    assert (found == 0).tolist() == [share == 0 for share in shares]


def test_crops_and_flips_of_a_device_equal_the_hosts():
    """What a GPU computes, computed by the CPU."""
    generator = torch.Generator().manual_seed(0)
    padded = torch.randint(256, (50, 3, 12, 13), generator=generator, dtype=torch.uint8)
    rows = torch.randint(50, (64,), generator=generator)
    chosen = torch.randint(4, (2, 64), generator=generator)
    host = augment.crop_on_host(padded, rows, *chosen, (9, 8))
    device = augment.crop_on_device(padded, rows, *chosen, (9, 8))
    assert torch.equal(host, device)
    for axes in ((-1,), (-2,), (-2, -1)):
        which = torch.rand(64, generator=generator) < 0.5
        flipped = augment.flip_on_device(host, which, axes)
        before = host.clone()
        assert torch.equal(augment.flip_on_host(host.clone(), which, axes), flipped)
        assert torch.equal(host, before)
        assert torch.equal(flipped[~which], host[~which])
        assert not torch.equal(flipped, host)


def test_images_are_not_written_to():
    """A batch may be changed in place without changing the next."""
    dataset = InMemoryDataset(Pictures(*[(6, 6, 3)] * 4, pipeline=[PACK]))
    first = dataset.__getitems__([0, 1])["inputs"]
    kept = first.clone()
    first.zero_()
    assert torch.equal(dataset.__getitems__([0, 1])["inputs"], kept)


def test_loading_transforms_are_done_once(tmp_path):
    init_default_scope("mmpretrain")
    generator = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    for number in range(6):
        image = generator.integers(0, 256, (20 + number, 30 - number, 3), dtype=np.uint8)
        mmcv.imwrite(image, str(tmp_path / f"a/{number}.png"))
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="ResizeEdge", scale=16, edge="short"),
        dict(type="CenterCrop", crop_size=12),
        PACK,
    ]
    cfg = dict(
        type="mmpretrain.CustomDataset",
        data_root=str(tmp_path),
        data_prefix="",
        with_label=True,
        pipeline=pipeline,
    )
    stock, dataset = DATASETS.build(cfg), InMemoryDataset(cfg)
    assert same_pictures(dataset.__getitems__(range(6)), [stock[i]["inputs"] for i in range(6)])
    resized = [pipeline[0], dict(type="Resize", scale=(9, 7)), PACK]
    stock, dataset = (
        build(dict(cfg, pipeline=resized)) for build in (DATASETS.build, InMemoryDataset)
    )
    assert same_pictures(dataset.__getitems__(range(6)), [stock[i]["inputs"] for i in range(6)])
    # The files are no longer needed.
    for file in (tmp_path / "a").iterdir():
        file.unlink()
    assert dataset.__getitems__([5])["inputs"].shape == (1, 3, 7, 9)


# -- randomness -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference():
    return seen(loader_of(IN_MEMORY), 1)


def test_without_a_seeded_sampler():
    plain = dict(sampler=dict(type="DefaultSampler", shuffle=True))
    with pytest.raises(ValueError, match=r"train_dataloader.sampler=dict\(type='mmkd_logit.Seeded"):
        next(iter(loader_of(IN_MEMORY, **plain)))
    with pytest.raises(ValueError, match=r"SampleKey\(seed, epoch, idx\)"):
        DATASETS.build(IN_MEMORY)[3]
    with pytest.raises(ValueError, match="keys with a seed and keys without"):
        DATASETS.build(IN_MEMORY).__getitems__([3, SampleKey(0, 0, 3)])
    # Where nothing is random any sampler will do.
    fixed = dict(IN_MEMORY, dataset=dict(IN_MEMORY["dataset"], pipeline=[PACK]))
    table = seen(loader_of(dataset=fixed, **plain))
    assert table == seen(loader_of(dataset=fixed)) == seen(loader_of(dataset=fixed, seed=9), 4)
    assert {view for _, _, view in table.values()} == {0}


# -- samples ----------------------------------------------------------------------------------


def test_samples_are_mmpretrains():
    init_default_scope("mmpretrain")
    stock = Digits(pipeline=[PACK])
    dataset = InMemoryDataset(stock)
    batch = dataset.__getitems__([3, 900, 0])
    assert batch["data_samples"].views.per_sample == 1
    for sample, index in zip(batch["data_samples"], (3, 900, 0), strict=True):
        theirs = stock[index]["data_samples"]
        assert torch.equal(sample.gt_label, theirs.gt_label)
        assert sample.sample_idx == theirs.sample_idx == index
        assert "clean_label" not in sample
    one = dataset[-1]
    assert torch.equal(one["inputs"], stock[900]["inputs"])
    assert one["data_samples"].sample_idx == 900
    assert len(list(dataset)) == len(dataset) == 901
    with pytest.raises(IndexError, match="901 is out of bounds for axis 0 with size 901"):
        dataset[901]


def wrapped(order):
    """Noise and a part, in both orders, around or inside the images in memory."""
    dataset = IN_MEMORY if order[0] == "memory" else IN_MEMORY["dataset"]
    for name in order[1:] if order[0] == "memory" else order:
        if name == "noise":
            dataset = dict(
                type="mmkd_logit.NoisyLabelDataset", dataset=dataset, kind="symmetric", rate=0.4
            )
        elif name == "part":
            dataset = dict(type="mmkd_logit.DataSubset", dataset=dataset, per_class=0.5, seed=1)
        else:
            dataset = dict(type="mmkd_logit.InMemoryDataset", dataset=dataset)
    return dataset


@pytest.mark.parametrize("names", [("noise",), ("part",), ("noise", "part"), ("part", "noise")])
def test_wrappers_change_labels_and_choice_but_no_picture(names, reference):
    """Wherever the images in memory stand; and labels are those of the wrappers without memory."""
    around, inside = (
        loader_of(dataset=wrapped(o)) for o in (("memory", *names), (*names, "memory"))
    )
    stock = DATASETS.build(wrapped(names))
    infos = [stock.get_data_info(i) for i in range(len(stock))]
    assert np.array_equal(around.dataset.get_gt_labels(), stock.get_gt_labels())
    assert around.dataset.description == stock.description == inside.dataset.description
    assert around.dataset.get_data_info(5)["sample_idx"] == infos[5]["sample_idx"]
    for loader in (around, inside):
        table = seen(loader, 1)
        assert table.keys() == {info["sample_idx"] for info in infos}
        assert {i: row[1] for i, row in table.items()} == {
            info["sample_idx"]: info["gt_label"] for info in infos
        }
        for index, (picture, _, view) in table.items():
            assert (picture, view) == (reference[index][0], reference[index][2])
        for sample in next(iter(loader))["data_samples"]:
            clean = {info["sample_idx"]: info.get("clean_label") for info in infos}
            assert sample.get("clean_label") == clean[sample.sample_idx]
    if "noise" in names:
        assert (stock.get_gt_labels() != [info["clean_label"] for info in infos]).any()
    # What a cache of the teacher knows a picture by is that of the whole, outside.
    plain = next(iter(loader_of(IN_MEMORY)))["data_samples"].views
    views = next(iter(around))["data_samples"].views
    assert (views.pictures, views.samples) == (plain.pictures, 901)
    one = around.dataset[SampleKey(0, 1, 7)]
    assert one["inputs"].numpy().tobytes() == reference[infos[7]["sample_idx"]][0]


def test_pictures_are_told_apart():
    def pictures(**settings):
        dataset = dict(IN_MEMORY["dataset"], **settings)
        return InMemoryDataset(dataset)._pictures

    def crop(**settings):
        return [dict(type="mmpretrain.RandomCrop", **settings), PACK]

    init_default_scope("mmpretrain")
    different = [
        pictures(),
        pictures(split="val"),
        pictures(indices=900),
        pictures(pipeline=[PACK]),
        pictures(pipeline=[FLIP, PACK]),
        pictures(pipeline=[dict(FLIP, direction="vertical"), PACK]),
        pictures(pipeline=crop(crop_size=8, padding=1)),
        pictures(pipeline=crop(crop_size=8, padding=2)),
        pictures(pipeline=crop(crop_size=8, padding=1, pad_val=3)),
        pictures(pipeline=crop(crop_size=7, padding=1)),
    ]
    assert len(set(different)) == len(different)
    assert pictures() == pictures()
    # How often something is shown does not change what it is.
    assert pictures(pipeline=[dict(FLIP, prob=0.1), PACK]) == different[4]


def test_numbers_end_where_there_are_too_many():
    def views(size, crop):
        stock = Pictures(size, size, pipeline=[dict(type="RandomCrop", crop_size=crop), PACK])
        return InMemoryDataset(stock).__getitems__(keys_of([0]))["data_samples"].views

    assert views((64, 64, 3), 1).per_sample == 4096
    assert views((64, 65, 3), 1) is None


def test_lazy():
    dataset = InMemoryDataset(IN_MEMORY["dataset"], lazy_init=True)
    assert not dataset._fully_initialized
    assert not dataset.dataset._fully_initialized
    assert hasattr(dataset, "__getitems__")
    assert dataset.__getitems__(keys_of([1]))["inputs"].shape == (1, 1, 8, 8)
    assert not hasattr(DataSubset(IN_MEMORY["dataset"], per_class=0.5), "__getitems__")
    noisy = NoisyLabelDataset(
        dict(type="mmkd_logit.InMemoryDataset", dataset=IN_MEMORY["dataset"], lazy_init=True),
        kind="symmetric",
        rate=0.2,
        lazy_init=True,
    )
    assert noisy[SampleKey(0, 0, 4)]["data_samples"].sample_idx == 4


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        (
            [dict(type="ColorJitter", brightness=0.5), PACK],
            "^ColorJitter is not done in memory: only",
        ),
        (
            [dict(type="RandomResizedCrop", scale=8), PACK],
            r"RandomResizedCrop .* mmkd_logit.Seeded",
        ),
        ([FLIP, dict(type="CenterCrop", crop_size=4), PACK], "CenterCrop .* after a random transf"),
        ([FLIP], "RandomFlip .* must end in PackInputs"),
        ([], "^nothing .* must end in PackInputs"),
        ([dict(PACK, algorithm_keys=("mask",))], "PackInputs .* packs gt_label and img alone"),
        (
            [dict(type="RandomCrop", crop_size=4, padding=1, padding_mode="reflect"), PACK],
            r"RandomCrop\(padding_mode='reflect'\) is not done in memory",
        ),
        *(
            ([dict(dict(type="RandomCrop", crop_size=4), **wrong), PACK], message)
            for wrong, message in [
                (dict(padding=[1, 2, 3]), r"2 or 4 of them, got .* padding=\[1, 2, 3\]"),
                (dict(padding=-1), "an integer from 0 on"),
                (dict(crop_size=2.5), r"got crop_size=\(2.5, 2.5\)"),
                (dict(padding=1, pad_val="a"), r"RandomCrop\(pad_val='a'\): pad_val must be a int"),
                (
                    dict(crop_size=9, padding=1),
                    r"crop_size=\(9, 9\)\) is larger than .* 8 x 8 with",
                ),
            ]
        ),
        (
            [dict(type="Cutout", shape=4), PACK],
            r"Cutout .*is not done in memory: only",
        ),
        (
            [dict(type="LoadImageFromFile", to_float32=True), PACK],
            "uint8 arrays; sample 0 has float",
        ),
    ],
)
def test_transforms_that_are_not_done(pipeline, message, tmp_path):
    mmcv.imwrite(np.zeros((6, 6, 3), dtype=np.uint8), str(tmp_path / "a.png"))

    class Files(Pictures):
        def load_data_list(self):
            infos = super().load_data_list()
            return [dict(info, img_path=str(tmp_path / "a.png")) for info in infos]

    with pytest.raises(ValueError, match=message):
        InMemoryDataset(Files((6, 6, 3), pipeline=pipeline))


def test_data_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\(3, 6, 6\) of the first and \(3, 6, 7\) of sample 1"):
        InMemoryDataset(Pictures((6, 6, 3), (6, 7, 3)))
    with pytest.raises(ValueError, match="in memory already"):
        InMemoryDataset(IN_MEMORY)
    with pytest.raises(ValueError, match=r"pipeline.0 of Digits has wrong arguments: .*crop_size'"):
        InMemoryDataset(dict(type="mmkd_logit.Digits", pipeline=[dict(CROP, crop_size=0), PACK]))
    with pytest.raises(ValueError, match="device must be one of 'cpu', 'cuda', 'auto', got 'gpu'"):
        InMemoryDataset(IN_MEMORY["dataset"], device="gpu")

    class Many(Pictures):
        def load_data_list(self):
            return [dict(info, gt_label=[0, 1]) for info in super().load_data_list()]

    with pytest.raises(ValueError, match=r"gt_label of sample 0 is \[0, 1\]"):
        InMemoryDataset(Many((6, 6, 3)))


def test_devices(monkeypatch):
    cuda, auto = (DATASETS.build(dict(IN_MEMORY, device=device)) for device in ("cuda", "auto"))
    key = SampleKey(0, 0, 3)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="needs a GPU; or say device='auto'"):
            cuda[key]
    monkeypatch.setattr("mmkd_logit.datasets.in_memory.get_worker_info", lambda: "a worker")
    with pytest.raises(ValueError, match="needs a loader without workers"):
        cuda[key]
    assert auto[key]["inputs"].device.type == "cpu"


@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_workers_after_the_images_are_on_a_gpu(monkeypatch, device):
    """The check before training reads a batch in the process of which workers are forked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self.to("meta"))
    dataset = DATASETS.build(dict(IN_MEMORY, device=device))
    dataset.full_init()
    assert dataset._images_on_device().is_meta
    monkeypatch.setattr("mmkd_logit.datasets.in_memory.get_worker_info", lambda: "a worker")
    if device == "auto":
        assert dataset[SampleKey(0, 0, 3)]["inputs"].device.type == "cpu"
    else:
        with pytest.raises(ValueError, match="needs a loader without workers"):
            dataset[SampleKey(0, 0, 3)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_pictures_of_a_gpu(device, cifar100):
    keys = keys_of(range(0, 5000, 17))
    there, here = (InMemoryDataset(cifar100, device=d).__getitems__(keys) for d in (device, "cpu"))
    assert there["inputs"].is_cuda
    assert torch.equal(there["inputs"].cpu(), here["inputs"])
