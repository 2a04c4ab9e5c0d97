"""What several processes serve, train and measure is what one does."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from networks import build
from processes import run_ranks

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from truth_worker import (  # noqa: E402
    GLOBAL_BATCH,
    IMAGES,
    METRICS,
    SAME,
    TEACHER,
    TESTED,
    run_of,
    served,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("truth")
    for world in (2, 4):
        (folder / str(world)).mkdir()
        torch.save(build(TEACHER["config"]).state_dict(), folder / str(world) / "teacher.pth")
    return run_ranks("distributed/truth_worker.py", folder)


@pytest.fixture(scope="module", params=[2, 4])
def place(folder, request):
    return folder / str(request.param)


@pytest.fixture(scope="module")
def ranks(place):
    files = [place / f"{rank}.pt" for rank in range(int(place.name))]
    return [torch.load(file, weights_only=False) for file in files]


@pytest.fixture(scope="module")
def alone():
    return served(size=GLOBAL_BATCH)


def in_turn(parts):
    """The samples of all processes in the order of one: the first of each, the second of each."""
    return [sample for samples in zip(*parts, strict=True) for sample in samples]


def test_labels_and_pictures_are_those_of_one_process(ranks, alone):
    """Noise of labels and augmentation; the data set is padded by its first samples."""
    for epoch, expected in enumerate(alone):
        both = in_turn([rank["served"][epoch] for rank in ranks])
        assert len(both) == -(-IMAGES // len(ranks)) * len(ranks)
        assert both == (expected + expected)[: len(both)]
        assert sorted(number for number, *_ in both[:IMAGES]) == list(range(IMAGES))
    numbers, labels, clean, pictures = (list(column) for column in zip(*alone[0], strict=True))
    assert labels != clean
    assert len(set(pictures)) == IMAGES
    assert dict(zip(numbers, labels, strict=True)) == {row[0]: row[1] for row in alone[1]}
    assert set(pictures).isdisjoint({row[3] for row in alone[1]})  # each epoch draws anew


def test_control_noise_and_pictures_that_depend_on_the_process(ranks, alone):
    def rows(name):
        return in_turn([rank[name][0] for rank in ranks])[:IMAGES]

    apart = {number: label for number, label, *_ in rows("apart")}
    wrong = [number for number, label, *_ in alone[0] if apart[number] != label]
    first = {row[0] for row in ranks[0]["apart"][0]}
    assert wrong  # only where a process other than the first has its own noise
    assert first.isdisjoint(wrong)
    unseeded = {number: picture for number, _, _, picture in rows("unseeded")}
    one_process = {row[0]: row[3] for row in served(seeded=False, size=GLOBAL_BATCH)[0]}
    assert unseeded != one_process


def test_an_epoch_serves_every_sample_and_the_last_batch_is_uneven(ranks):
    world = len(ranks)
    steps = list(zip(*(rank["plain"]["seen"] for rank in ranks), strict=True))
    sizes = [len(numbers) for numbers in ranks[0]["plain"]["seen"]]
    share = -(-IMAGES // world)
    assert sizes == 2 * [*([GLOBAL_BATCH // world] * (share * world // GLOBAL_BATCH)), sizes[-1]]
    assert 0 < sizes[-1] < GLOBAL_BATCH // world
    for epoch in (steps[: len(steps) // 2], steps[len(steps) // 2 :]):
        assert all(len({len(part) for part in parts}) == 1 for parts in epoch)
        numbers = [number for parts in epoch for part in parts for number in part]
        assert set(numbers) == set(range(IMAGES))
        assert len(numbers) == share * world


@pytest.mark.parametrize("name", ["late", "broadcast"])
def test_a_straggler_and_sent_buffers_change_nothing(ranks, name):
    for rank in ranks:
        assert rank[name]["metrics"] == rank["plain"]["metrics"]
        assert rank[name]["seen"] == rank["plain"]["seen"]
        for key in weights(rank["plain"]):
            assert torch.equal(rank[name]["state"][key], rank["plain"]["state"][key]), key


def weights(result):
    return [key for key in result["state"] if key not in result["buffers"]]


def test_all_end_with_the_same_weights_and_buffers(ranks):
    for rank in ranks:
        for key, value in ranks[0]["plain"]["state"].items():
            assert torch.equal(rank["plain"]["state"][key], value), key
        assert rank["plain"]["metrics"] == ranks[0]["plain"]["metrics"]


def test_control_without_the_hook_each_has_its_own_buffers(ranks):
    first, second = (rank["own buffers"] for rank in ranks[:2])
    for key in weights(first):
        assert torch.equal(first["state"][key], second["state"][key])
        assert torch.equal(first["state"][key], ranks[0]["plain"]["state"][key])
    means = [key for key in first["buffers"] if key.endswith("running_mean")]
    assert means
    for key in means:
        assert not torch.equal(first["state"][key], second["state"][key])
        assert torch.equal(first["state"][key], ranks[0]["plain"]["state"][key])
    # None of these networks is the one that these numbers are of.
    assert first["metrics"]["logits/norm"] != ranks[0]["plain"]["metrics"]["logits/norm"]


def test_metrics_and_dump_are_those_of_one_process_with_the_checkpoint(ranks, place, tmp_path):
    checkpoint = str(place / "plain" / "epoch_2.pth")
    cfg = run_of(tmp_path, place / "teacher.pth", SAME, load_from=checkpoint)
    found = Runner.from_cfg(cfg).test()
    expected = ranks[0]["plain"]["metrics"]
    assert {name: found[name] for name in METRICS} == pytest.approx(expected, rel=1e-5)
    with np.load(place / "plain" / "val.npz") as several, np.load(tmp_path / "test.npz") as one:
        assert several["index"].tolist() == one["index"].tolist() == list(range(TESTED))
        for name in ("label", "clean_label"):
            assert several[name].tolist() == one[name].tolist()
        for name in ("logits", "teacher_logits"):
            np.testing.assert_allclose(several[name], one[name], rtol=1e-4, atol=1e-5)
    # The control: the network of the other processes would give other numbers.
    wrong = ranks[0]["own buffers"]["metrics"]["logits/norm"]
    assert found["logits/norm"] != pytest.approx(wrong, rel=1e-5)


def test_sync_bn_is_for_gpus_and_frozen_teachers_may_have_it(ranks):
    """PyTorch itself says so, at the first batch."""
    for rank in ranks:
        said, same = rank["sync_bn"]
        assert "SyncBatchNorm expected input tensor to be on" in said
        assert same
