"""Every config: parses, says in its name what it holds, builds, and trains a step."""

import copy
import math
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope, init_default_scope
from networks import raw_batch

PROJECT = Path(__file__).resolve().parents[2]
PLAIN = sorted(path.stem for path in (PROJECT / "configs/wrn").glob("*.py"))
KD = sorted(path.stem for path in (PROJECT / "configs/kd").glob("*.py"))
METHODS = sorted(path.stem for path in (PROJECT / "configs/methods").glob("*.py"))
NETWORK = re.compile(r"wrn(\d+)-(\d+)(-thin)?")
LOSSES = {
    "mse": dict(type="mmkd_logit.LogitMSELoss"),
    **{f"kl-t{tau}": dict(type="mmkd_logit.ScaledKLDivLoss", tau=tau) for tau in (1, 3, 5, 20)},
    "kl-tinf": dict(type="mmkd_logit.ScaledKLDivLoss", tau="inf"),
}
# alpha, loss_kd, and for each term of features: loss, module, total weight, adapters
METHOD = {
    "fitnets": (0.0, None, [("MSELoss", "backbone.groups.1", 100.0, "ConvReg", None)]),
    "at": (
        0.0,
        None,
        [("ATLoss", f"backbone.groups.{i}", 1000.0, None, None) for i in range(3)],
    ),
    "ft": (
        0.0,
        None,
        [
            (
                "FTLoss",
                "backbone.groups.2",
                500.0,
                "Translator4FactorTransfer",
                "Paraphraser4FactorTransfer",
            )
        ],
    ),
    "ab": (
        0.0,
        None,
        [
            ("AltActTransferLoss", "backbone.groups.1.0.norm1", 0.00075, "ConvReg", None),
            ("AltActTransferLoss", "backbone.groups.2.0.norm1", 0.0015, "ConvReg", None),
            ("AltActTransferLoss", "backbone.norm", 0.003, "ConvReg", None),
        ],
    ),
    "dkd": (0.5, dict(type="mmkd_logit.DKDLoss", tau=4, alpha=1, beta=8), []),
    "dist": (0.5, dict(type="mmkd_logit.DISTLoss", beta=2, gamma=2, tau=4), []),
    "kl-t4-std": (
        0.9,
        dict(
            type="mmkd_logit.LogitStandardization",
            loss=dict(type="mmkd_logit.ScaledKLDivLoss", tau=4),
        ),
        [],
    ),
}


def load(folder, name):
    return Config.fromfile(PROJECT / "configs" / folder / f"{name}.py")


def build(cfg):
    if DefaultScope.get_current_instance() is None:
        init_default_scope("mmpretrain")
    model = copy.deepcopy(cfg.model)
    model.setdefault("data_preprocessor", cfg.data_preprocessor)
    return MODELS.build(model)


def check_network(model, name, digits):
    depth, widen_factor, thin = NETWORK.fullmatch(name).groups()
    depth, widen_factor = int(depth), int(widen_factor)
    base_channels = 4 if thin else 16
    assert (model.backbone.depth, model.backbone.widen_factor) == (depth, widen_factor)
    assert model.backbone.get("base_channels", 16) == base_channels
    assert model.head.in_channels == 4 * base_channels * widen_factor
    assert model.head.num_classes == (10 if digits else 100)


def check_step(model, cfg, digits):
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    shape = dict(num_classes=10, channels=1, size=8) if digits else dict(num_classes=100, size=32)
    model.train()
    before = model.head.fc.weight.clone()
    log = model.train_step(raw_batch(2, **shape), wrapper)
    assert torch.isfinite(log["loss"])
    assert not torch.equal(model.head.fc.weight, before)


def check_recipe(cfg, epochs, milestones, batch_size):
    assert cfg.optim_wrapper.optimizer == dict(
        type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.param_scheduler.milestones == milestones
    assert cfg.param_scheduler.gamma == 0.1
    assert cfg.train_dataloader.batch_size == batch_size
    assert cfg.randomness.seed == 0


@pytest.mark.parametrize("name", PLAIN)
def test_plain_config(name, project):
    cfg, digits = load("wrn", name), name.endswith("_digits")
    check_network(cfg.model, name.removesuffix("_digits"), digits)
    model = build(cfg)
    check_step(model, cfg, digits)
    if digits:
        check_recipe(cfg, 30, [15, 23], 64)
    else:
        check_recipe(cfg, 200, [100, 150], 128)


@pytest.mark.parametrize("name", KD)
def test_kd_config(name, project):
    cfg, loss = check_pair("kd", name)
    assert cfg.model.alpha == 1.0
    assert cfg.model.loss_kd == LOSSES[loss]


@pytest.mark.parametrize("name", METHODS)
def test_method_config(name, project):
    cfg, method = check_pair("methods", name)
    alpha, loss, terms = METHOD[method]
    if name.endswith("at_digits"):  # attention is a mean over pixels, and 8x8 are a sixteenth
        terms = [(loss_name, path, weight / 16, *rest) for loss_name, path, weight, *rest in terms]
    assert (cfg.model.alpha, cfg.model.get("loss_kd")) == (alpha, loss)
    found = []
    for term in cfg.model.get("feature_kd", []):
        assert term.student == term.teacher
        adapters = [(term.get(f"{whose}_adapter") or {}).get("name") for whose in ROLES]
        found.append((term.loss.name, term.student, pytest.approx(term.weight), *adapters))
    assert found == terms


ROLES = ("student", "teacher")


def check_pair(folder, name):
    """Everything in a distilling config but its loss; return it and the loss's name."""
    cfg = load(folder, name)
    teacher, student, loss, *digits = name.split("_")
    suffix = "_digits" if digits else ""
    assert cfg.model.type == "mmkd_logit.LogitDistiller"
    check_network(cfg.model.student, student, digits)
    assert cfg.model.teacher.config == f"configs/wrn/{teacher}{suffix}.py"
    assert cfg.model.teacher.checkpoint == f"work_dirs/{teacher}{suffix}/seed0/final.pth"
    check_network(Config.fromfile(cfg.model.teacher.config).model, teacher, digits)
    # But for the model and how its log lines are averaged it is the student's plain config.
    plain = load("wrn", f"{student}{suffix}")
    ours = {key: value for key, value in cfg.items() if key not in ("model", "log_processor")}
    assert ours == {key: value for key, value in plain.items() if key != "model"}
    assert cfg.model.student == plain.model

    trained = copy.deepcopy(cfg)
    trained.model.teacher.checkpoint = None
    check_step(build(trained), trained, bool(digits))
    return cfg, loss


def test_each_method_is_there_on_both_data_sets():
    pairs = ("wrn28-4_wrn16-2_{}", "wrn16-2_wrn10-1-thin_{}_digits")
    assert sorted(pair.format(method) for pair in pairs for method in METHOD) == METHODS


def test_the_papers_first_row_is_complete():
    first_row = [name for name in KD if name.startswith("wrn28-4_wrn16-2_")]
    assert {name.removeprefix("wrn28-4_wrn16-2_") for name in first_row} == set(LOSSES)


def test_no_decay_on_one_dimensional_parameters():
    cfg = load("wrn", "wrn16-2")
    model = build(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        expected = 0.0 if parameter.ndim == 1 else 5e-4
        assert decay[id(parameter)] == expected, name
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in optimizer.param_groups)


def test_learning_rate_over_200_epochs():
    cfg = load("wrn", "wrn16-2")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = PARAM_SCHEDULERS.build(cfg.param_scheduler, default_args=dict(optimizer=optimizer))
    rates = []
    for _ in range(200):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    expected = [0.1] * 100 + [0.01] * 50 + [0.001] * 50
    assert rates == pytest.approx(expected)


def test_data_of_the_recipe():
    cfg = load("wrn", "wrn16-2")
    crop, flip, pack = cfg.train_dataloader.dataset.pipeline
    assert crop == dict(type="RandomCrop", crop_size=32, padding=4)
    assert flip == dict(type="RandomFlip", prob=0.5, direction="horizontal")
    assert pack.type == "PackInputs"
    mean, std = cfg.data_preprocessor.mean, cfg.data_preprocessor.std
    assert [round(x / 255, 4) for x in mean] == pytest.approx([0.5071, 0.4865, 0.4409], abs=2e-4)
    assert [round(x / 255, 4) for x in std] == pytest.approx([0.2673, 0.2564, 0.2762], abs=2e-4)
    assert cfg.val_dataloader.dataset.split == cfg.test_dataloader.dataset.split == "test"
    assert [step.type for step in cfg.test_dataloader.dataset.pipeline] == ["PackInputs"]


def test_classifier_starts_as_the_authors():
    """torch's own uniform weights, and a bias of 0."""
    torch.manual_seed(0)
    model = build(load("wrn", "wrn16-2"))
    model.init_weights()
    weight, bound = model.head.fc.weight, 1 / math.sqrt(128)
    assert weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not model.head.fc.bias.any()


def test_cifar100_root_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("CIFAR100_ROOT", "/somewhere/else")
    assert load("wrn", "wrn16-2").train_dataloader.dataset.data_root == "/somewhere/else"
    monkeypatch.delenv("CIFAR100_ROOT")
    cfg = load("wrn", "wrn16-2")
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_root == "data/cifar100"


def test_digits_are_normalised_by_their_own_statistics():
    from mmkd_logit.datasets import Digits

    dataset = Digits(split="train")
    images = torch.stack([torch.as_tensor(dataset[i]["img"]) for i in range(len(dataset))]).float()
    preprocessor = load("wrn", "wrn16-2_digits").data_preprocessor
    assert preprocessor.mean[0] == pytest.approx(images.mean().item(), abs=0.5)
    assert preprocessor.std[0] == pytest.approx(images.std().item(), abs=0.5)


def test_real_cifar100(cifar100_root, project, monkeypatch):
    """The real files through the config's own loader, pipeline and preprocessor."""
    from mmengine.runner import Runner

    cfg = load("wrn", "wrn10-1")
    cfg.val_dataloader.update(num_workers=0, persistent_workers=False)
    init_default_scope("mmpretrain")
    loader = Runner.build_dataloader(cfg.val_dataloader)
    assert len(loader.dataset) == 10_000
    data = build(cfg).data_preprocessor(next(iter(loader)), False)
    assert data["inputs"].shape == (500, 3, 32, 32)
    assert data["inputs"].mean().abs() < 0.1
    assert data["inputs"].std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("folder", ["wrn", "kd", "methods"])
def test_metafile_is_true(folder):
    import yaml

    metafile = yaml.safe_load((PROJECT / "configs" / folder / "metafile.yml").read_text())
    entries = {entry["Name"]: entry for entry in metafile["Models"]}
    assert sorted(entries) == dict(wrn=PLAIN, kd=KD, methods=METHODS)[folder]
    for name, entry in entries.items():
        assert entry["Config"] == f"configs/{folder}/{name}.py"
        cfg = load(folder, name)
        parameters = sum(  # of the student, as in final.pth
            p.numel()
            for key, p in build(cfg).named_parameters()
            if not key.startswith("feature_adapters.")
        )
        assert entry["Metadata"]["Parameters"] == parameters, name
        data = "Digits" if name.endswith("_digits") else "CIFAR-100"
        assert entry["Metadata"]["Training Data"] == data
