"""What each of the processes of test_truth.py does; writes RANK.pt."""

import copy
import hashlib
import os
import time

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, init_default_scope
from mmengine.runner import Runner
from networks import build, wrn
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


def main(folder):
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
