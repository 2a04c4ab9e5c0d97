"""What several processes serve, train and measure is what one does."""

import copy
import hashlib
import os
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, init_default_scope
from mmengine.runner import Runner
from networks import build, wrn
from processes import run_ranks
from runs import digits_distiller, digits_student, run_config

from mmkd_logit.engine.launch import prepare_launch

IMAGES, TESTED, GLOBAL_BATCH = 42, 23, 16  # neither is a multiple of 4
SAME = dict(type="mmkd_logit.SyncBuffersBeforeEvalHook")


@HOOKS.register_module(force=True)  # pytest imports this file too
class Straggler(Hook):
    """Has the last process come late."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if dist.get_rank() == dist.get_world_size() - 1 and runner.iter in (1, 4):
            time.sleep(0.5)

    def before_val_epoch(self, runner):
        if dist.get_rank() == dist.get_world_size() - 1:
            time.sleep(0.5)


def loader(noise_seed=0, seeded=True, size=8):
    """Config of noisy digits with random crops, 42 of them."""
    crop = [dict(type="RandomCrop", crop_size=8, padding=2), dict(type="PackInputs")]
    digits = dict(type="mmkd_logit.Digits", split="train", indices=IMAGES, pipeline=crop)
    memory = dict(type="mmkd_logit.InMemoryDataset", dataset=digits) if seeded else digits
    noisy = dict(type="mmkd_logit.NoisyLabelDataset", dataset=memory, kind="symmetric", rate=0.4)
    sampler = dict(type="DefaultSampler", shuffle=True)
    return dict(
        batch_size=size,
        num_workers=0,
        dataset=dict(noisy, seed=noise_seed),
        sampler=dict(type="mmkd_logit.SeededSampler", sampler=sampler) if seeded else sampler,
        collate_fn=dict(type="mmkd_logit.batch_collate"),
    )


def served(**kwargs):
    """For two epochs, what is served in order: number, label, true label and picture."""
    init_default_scope("mmpretrain")
    batches = Runner.build_dataloader(loader(**kwargs), seed=5)
    epochs = []
    for epoch in (0, 1):
        batches.sampler.set_epoch(epoch)
        rows = []
        for batch in batches:
            pictures = batch["inputs"]
            for place, sample in enumerate(batch["data_samples"]):
                digest = hashlib.sha256(pictures[place].numpy().tobytes()).hexdigest()
                row = (int(sample.sample_idx), int(sample.gt_label), int(sample.clean_label))
                rows.append((*row, digest))
        epochs.append(rows)
    return epochs


def evaluators(out_file):
    return [
        dict(type="Accuracy", topk=(1, 5)),
        dict(type="mmkd_logit.LogitStatistics"),
        dict(type="mmkd_logit.TeacherAgreement"),
        dict(type="mmkd_logit.PerClassAccuracy"),
        dict(type="mmkd_logit.LogitDump", out_file=out_file),
    ]


TEACHER = dict(config=digits_student(widen_factor=2))


def run_of(folder, teacher, *hooks, world=1, **settings):
    """Config of a run with BatchNorm in training, whose last batch is uneven."""
    model = digits_distiller(alpha=0.5, teacher=dict(TEACHER, checkpoint=str(teacher)))
    cfg = run_config(
        model,
        folder,
        images=IMAGES,
        batch_size=GLOBAL_BATCH // world,
        custom_hooks=[dict(type="mmkd_logit.LogitOutputsHook"), *hooks],
        val_evaluator=evaluators(f"{folder}/val.npz"),
        test_evaluator=evaluators(f"{folder}/test.npz"),
        **settings,
    )
    for name in ("val_dataloader", "test_dataloader"):
        cfg[name].dataset.update(split="test", indices=TESTED)
        cfg[name].batch_size = 4
    return cfg


def train(cfg, *wrapper):
    """Train; return weights, the metrics of the last validation and what was served."""
    prepare_launch(cfg, "pytorch")
    cfg.model_wrapper_cfg.update(*wrapper)
    runner = Runner.from_cfg(cfg)
    seen = []
    runner.register_hook(_Watch(seen))
    runner.train()
    model = runner.model.module
    state = {key: value.clone() for key, value in model.state_dict().items()}
    names = [name for name, _ in model.named_buffers()]
    metrics = {name: runner.message_hub.get_scalar(f"val/{name}").current() for name in METRICS}
    return dict(state=state, buffers=names, metrics=metrics, seen=seen)


METRICS = ("accuracy/top1", "logits/norm", "logits/entropy", "agreement/top1", "class_accuracy/std")


class _Watch(Hook):
    def __init__(self, seen):
        self.seen = seen

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.seen.append([int(s.sample_idx) for s in data_batch["data_samples"]])


def train_ranks(folder):
    os.chdir(folder)  # where MMEngine exchanges results
    prepare_launch(Config(dict(model=dict(type="x"))), "pytorch")
    rank, world = dist.get_rank(), dist.get_world_size()
    result = dict(
        served=served(size=GLOBAL_BATCH // world),
        apart=served(noise_seed=rank, size=GLOBAL_BATCH // world),
        unseeded=served(seeded=False, size=GLOBAL_BATCH // world),
    )
    late = dict(type=Straggler.__name__)
    for name, hooks, wrapper in (
        ("plain", [SAME], {}),
        ("late", [SAME, late], {}),
        ("broadcast", [SAME], dict(broadcast_buffers=True)),
        ("own buffers", [], {}),
    ):
        teacher = os.path.join(folder, "teacher.pth")
        cfg = run_of(os.path.join(folder, name), teacher, *hooks, world=world)
        result[name] = train(cfg, wrapper)
    result["sync_bn"] = sync_bn()
    torch.save(result, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def sync_bn():
    """What PyTorch says of SyncBN in training on CPUs, and whether a teacher may have it."""
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    try:
        torch.nn.SyncBatchNorm(3).train()(images)
        said = None
    except (ValueError, RuntimeError) as error:
        said = str(error)
    network = build(wrn()).eval()
    converted = torch.nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))
    return said, torch.equal(network(images), converted(images))


@pytest.fixture(scope="module", params=[2, 4])
def place(tmp_path_factory, request):
    """The folder of what 2 and 4 processes did."""
    folder = tmp_path_factory.mktemp(str(request.param))
    torch.save(build(TEACHER["config"]).state_dict(), folder / "teacher.pth")
    run_ranks(request.param, train_ranks, folder)
    return folder


@pytest.fixture(scope="module")
def ranks(place):
    return [torch.load(file, weights_only=False) for file in sorted(place.glob("?.pt"))]


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
