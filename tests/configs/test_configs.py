"""Every config, from an empty folder: parses, is what its name says, builds, trains a step."""

import copy
import json
import math
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, DefaultScope, init_default_scope
from networks import raw_batch

from mmkd_logit.engine.check import check_config
from mmkd_logit.engine.fingerprint import fingerprint_of
from mmkd_logit.engine.train import build_config, build_parser, plan_runs
from mmkd_logit.models import TeacherSettings
from mmkd_logit.registry import config_path, load_config

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = {"wrn": "wrn", "res": "resnet", "mob": "mobilenet"}  # by the name of a network
PLAIN = sorted(p.stem for f in FOLDER.values() for p in (PROJECT / "configs" / f).glob("*.py"))
STOPS = sorted(path.stem for path in (PROJECT / "configs/noisy_teacher").glob("*.py"))
KD = sorted(path.stem for path in (PROJECT / "configs/kd").glob("*.py"))
NOISY = sorted(path.stem for path in (PROJECT / "configs/noisy_label").glob("*.py"))
NOISES = {
    "sym40": dict(kind="symmetric", rate=0.4, seed=0),
    "human": dict(
        kind="file",
        file="data/cifar100n/CIFAR-100_human.pt",
        key="noisy_label",
        clean_key="clean_label",
    ),
}
METAFILES = sorted(path.parent.name for path in PROJECT.glob("configs/*/metafile.yml"))
SEQUENTIAL = sorted(
    path.stem
    for path in (PROJECT / "configs/sequential").glob("*.py")
    if not path.stem.startswith("chain_")
)
CHAINS = sorted(path.stem for path in (PROJECT / "configs/sequential").glob("chain_*.py"))
NETWORK = re.compile(r"wrn(\d+)-(\d+)(-thin|-half)?")
STOPPED = re.compile(r"(.+)-(stop\d+)")  # a teacher that stopped early
DATASETS = {  # by the last word of a name
    "cifar100": dict(num_classes=100, size=32),
    "digits": dict(num_classes=10, channels=1, size=8),
    "in1k": dict(num_classes=1000, size=64),
}
METHODS = sorted(path.stem for path in (PROJECT / "configs/methods").glob("*.py"))
LOSSES = {
    "mse": dict(type="mmkd_logit.LogitMSELoss"),
    **{f"kl-t{tau}": dict(type="mmkd_logit.ScaledKLDivLoss", tau=tau) for tau in (1, 3, 5, 20)},
    "kl-tinf": dict(type="mmkd_logit.ScaledKLDivLoss", tau="inf"),
}
# The settings of the paper's methods and of others that numbers are published of: alpha, loss_kd,
# and for each term of features: loss, module, total weight, adapters.
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


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def folder_of(network):
    return FOLDER[network[:3]]


def dataset_of(name):
    last = name.split("_")[-1]
    return last if last in DATASETS else "cifar100"


def load(folder, name):
    return Config.fromfile(PROJECT / "configs" / folder / f"{name}.py")


def build(cfg):
    if DefaultScope.get_current_instance() is None:
        init_default_scope("mmpretrain")
    model = copy.deepcopy(cfg.model)
    model.setdefault("data_preprocessor", cfg.data_preprocessor)
    return MODELS.build(model)


def check_network(model, name, dataset):
    assert model.head.num_classes == DATASETS[dataset]["num_classes"]
    if not NETWORK.fullmatch(name):
        check_other_network(model, name, dataset)
        return
    depth, widen_factor, variant = NETWORK.fullmatch(name).groups()
    depth, widen_factor = int(depth), int(widen_factor)
    base_channels = 4 if variant == "-thin" else 16
    if variant == "-half":
        assert model.backbone.strides == (2, 2, 2)
    assert (model.backbone.depth, model.backbone.widen_factor) == (depth, widen_factor)
    assert model.backbone.get("base_channels", 16) == base_channels
    assert model.head.in_channels == 4 * base_channels * widen_factor


def check_other_network(model, name, dataset):
    if name == "mobilenetv2":
        assert model.backbone.type == "mmkd_logit.MobileNetV2CIFAR"
        assert model.head.in_channels == 1280
        return
    depth = int(re.fullmatch(r"resnet(\d+)", name)[1])
    assert model.backbone.type == ("ResNet" if dataset == "in1k" else "ResNet_CIFAR")
    assert model.backbone.depth == depth
    assert model.head.in_channels == (2048 if depth >= 50 else 512)


def check_step(model, cfg, dataset):
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    model.train()
    before = model.head.fc.weight.clone()
    log = model.train_step(raw_batch(2, **DATASETS[dataset]), wrapper)
    assert torch.isfinite(log["loss"])
    assert not torch.equal(model.head.fc.weight, before)


def check_other_device(model, cfg, dataset):
    """Step where values do not exist: a tensor left on the CPU raises, as does a wait for one."""
    if cfg.model.get("feature_kd"):  # autocast knows no such device
        return
    model.to("meta")
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    log = model.train_step(raw_batch(2, **DATASETS[dataset]), wrapper)
    assert all(value.is_meta for value in log.values())


def check_recipe(cfg, epochs, milestones, batch_size, weight_decay=5e-4):
    optimizer = {k: v for k, v in cfg.optim_wrapper.optimizer.items() if k != "_scope_"}
    assert optimizer.pop("type") in ("SGD", "mmengine.SGD")  # that of mmpretrain's has no scope
    assert optimizer == dict(lr=0.1, momentum=0.9, weight_decay=weight_decay, nesterov=True)
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.param_scheduler.milestones == milestones
    assert cfg.param_scheduler.type.endswith("MultiStepLR")
    assert cfg.param_scheduler.gamma == 0.1
    assert cfg.train_dataloader.batch_size == batch_size
    assert cfg.randomness.seed == 0


@pytest.mark.parametrize("name", PLAIN)
def test_plain_config(name):
    cfg, dataset = load(folder_of(name), name), dataset_of(name)
    check_network(cfg.model, name.removesuffix(f"_{dataset}"), dataset)
    model = build(cfg)
    check_step(model, cfg, dataset)
    check_other_device(model, cfg, dataset)
    if dataset == "digits":
        check_recipe(cfg, 30, [15, 23], 64)
    elif dataset == "in1k":
        check_recipe(cfg, 100, [30, 60, 90], 32, weight_decay=1e-4)
        assert cfg.auto_scale_lr.base_batch_size == 8 * 32
    elif "-half" in name:
        check_recipe(cfg, 30, [15, 22], 128)
        assert cfg.train_cfg.val_interval == 30
    else:
        check_recipe(cfg, 200, [100, 150], 128)


@pytest.mark.parametrize("name", [*KD, *(name for name in STOPS if STOPPED.match(name))])
def test_kd_config(name):
    cfg, loss = check_pair("kd" if name in KD else "noisy_teacher", name)
    assert cfg.model.alpha == 1.0
    assert cfg.model.loss_kd == LOSSES[loss]


@pytest.mark.parametrize("name", METHODS)
def test_method_config(name):
    cfg, method = check_pair("methods", name)
    if method not in METHOD:  # a new one, which trained a step
        return
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
CACHE = dict(cache=dict(storage="disk"))


def check_pair(folder, name):
    """Everything in a distilling config but its loss; return it and the loss's name."""
    cfg, dataset = load(folder, name), dataset_of(name)
    teacher, student, loss, *rest = name.split("_")
    part = ["samples"] if name.endswith("_samples") else []
    assert rest == ([] if dataset == "cifar100" else [dataset]) + part
    suffix = "".join(f"_{word}" for word in rest)
    assert cfg.model.type == "mmkd_logit.LogitDistiller"
    check_network(cfg.model.student, student, dataset)
    stopped = STOPPED.fullmatch(teacher)
    teacher, source = stopped[1] if stopped else teacher, folder_of(teacher)
    made = f"{teacher}_{stopped[2]}" if stopped else teacher
    config = f"mmkd_logit::{'noisy_teacher' if stopped else source}/{made}{suffix}.py"
    checkpoint = f"work_dirs/{made}{suffix}/seed0/final.pth"
    if dataset == "in1k" and not stopped:
        checkpoint = f"torchvision://{teacher}.imagenet1k_v1"
    # Logits are kept where pictures have numbers and come again, and not where features are asked.
    cache = CACHE if dataset == "cifar100" else {}
    if cfg.model.get("feature_kd") and cache:
        cache = dict(cache=None)
    if part:
        cache = dict(cache, channels_last=True)
    assert cfg.model.teacher == dict(config=config, checkpoint=checkpoint, **cache)
    check_network(load_config(config).model, teacher, dataset)
    # But for the model and how its log lines are averaged it is the student's plain config.
    plain = load("data_amount" if part else folder_of(student), f"{student}{suffix}")
    ours = {key: value for key, value in cfg.items() if key not in ("model", "log_processor")}
    assert ours == {key: value for key, value in plain.items() if key != "model"}
    assert cfg.model.student == plain.model

    trained = copy.deepcopy(cfg)
    trained.model.teacher.update(checkpoint=None, cache=None)  # for pictures without number
    model = build(trained)
    check_step(model, trained, dataset)
    check_other_device(model, trained, dataset)
    return cfg, loss


def split_noisy(name):
    """Return networks and loss, noise and data set of a config of noisy_label."""
    found = re.fullmatch(rf"(.+)_({'|'.join(NOISES)})(_digits)?", name)
    assert found, f"{name} is not NETWORKS_NOISE[_digits]"
    return found[1], found[2], found[3] or ""


def a_tenth(network):
    """Return the config of a network, changed as those of 100 epochs of a tenth of the images."""
    cfg = load("wrn", network.removesuffix("-half"))
    cfg.model.backbone.strides = (2, 2, 2)
    whole = cfg.train_dataloader.dataset
    tenth = dict(type="mmkd_logit.DataSubset", per_class=0.1, dataset=whole)
    cfg.train_dataloader.dataset = tenth
    cfg.param_scheduler.milestones = [50, 75]
    cfg.train_cfg.update(max_epochs=100, val_interval=100)
    cfg.custom_hooks.append(dict(type="mmkd_logit.ChannelsLastHook"))
    return cfg


@pytest.mark.parametrize("name", NOISY)
def test_noisy_config(name, monkeypatch):
    """But for the labels, and the teacher's, it is the config of wrn or kd."""
    for variable in ("CIFARN_LABELS", "CIFARN_KEY", "CIFARN_CLEAN_KEY"):
        monkeypatch.delenv(variable, raising=False)
    cfg = load("noisy_label", name)
    words, noise, data = split_noisy(name)
    words, part = words.removesuffix("_samples"), "samples_" * words.endswith("_samples")
    network, *others = words.split("_")
    if part:
        plain = a_tenth(others[0] if others else network)
        if others:
            student = dict(type="mmkd_logit.LogitDistiller", student=plain.model, alpha=1.0)
            plain.model = dict(student, teacher={}, loss_kd=LOSSES[others[1]])
            plain.log_processor = load("_base_", "kd_log").log_processor
    elif others:
        plain = load("_base_/kd", f"{network}_{others[0]}{data}")
        plain.model.loss_kd = LOSSES[others[1]]
    else:
        plain = load("wrn", f"{network}{data}")
    assert cfg.train_dataloader.dataset == dict(
        type="mmkd_logit.NoisyLabelDataset",
        dataset=plain.train_dataloader.dataset,
        **NOISES[noise],
    )
    metrics = [metric.type for metric in cfg.pop("train_evaluator")]
    ours = ["CleanLabelAccuracy", "NoisyLabelAccuracy"]
    assert metrics == ["mmpretrain.Accuracy", *(f"mmkd_logit.{name}" for name in ours)]
    cfg.train_dataloader.dataset = plain.train_dataloader.dataset
    if others:
        teacher = f"{network}_{part}{noise}{data}"
        assert cfg.model.teacher == dict(
            config=f"mmkd_logit::noisy_label/{teacher}.py",
            checkpoint=f"work_dirs/{teacher}/seed0/final.pth",
            **({} if data else CACHE),
            **(dict(channels_last=True) if part else {}),
        )
        assert config_path(cfg.model.teacher.config).is_file()
        cfg.model.teacher = plain.model.teacher
    assert dict(cfg.items()) == dict(plain.items())


@pytest.mark.parametrize("name", ["wrn28-4_sym40", "wrn28-4_wrn16-2_mse_sym40"])
def test_data_root_reaches_the_wrapped_data(name, monkeypatch):
    monkeypatch.setenv("CIFAR100_ROOT", "/somewhere/else")
    wrapped = load("noisy_label", name).train_dataloader.dataset.dataset.dataset
    assert wrapped.data_root == "/somewhere/else"
    words = [f"mmkd_logit::noisy_label/{name}.py", "--cfg-options", "data_root=/another"]
    words += ["train_dataloader.dataset.rate=0.6"]
    cfg = build_config(build_parser().parse_args(words))
    assert cfg.train_dataloader.dataset.dataset.dataset.data_root == "/another"
    assert cfg.train_dataloader.dataset.rate == 0.6


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_sequential_config(name):
    """A kd config whose hook changes, half way, what its name says."""
    cfg = load("sequential", name)
    teachers, student, losses, *digits = name.split("_")
    suffix = "_digits" if digits else ""
    (first, *later), (loss, *later_losses) = teachers.split("-then-"), losses.split("-then-")
    base = load("kd", f"{first}_{student}_{loss}{suffix}")
    assert cfg.custom_hooks[:-1] == base.custom_hooks
    assert {**cfg, "custom_hooks": 0} == {**base, "custom_hooks": 0}

    expected = dict(begin=cfg.train_cfg.max_epochs // 2)
    assert cfg.param_scheduler.milestones[0] == expected["begin"]
    for teacher in later:
        config = f"mmkd_logit::wrn/{teacher}{suffix}.py"
        checkpoint = f"work_dirs/{teacher}{suffix}/seed0/final.pth"
        cache = {} if digits else CACHE
        expected["teacher"] = dict(config=config, checkpoint=checkpoint, **cache)
        check_network(load_config(config).model, teacher, digits[0] if digits else "cifar100")
    for loss in later_losses:
        expected["loss_kd"] = LOSSES[loss]
    hook = cfg.custom_hooks[-1]
    assert hook == dict(type="mmkd_logit.SequentialTeacherHook", stages=[expected])
    assert [stage.begin for stage in HOOKS.build(copy.deepcopy(hook)).stages] == [expected["begin"]]

    # It trains a step, before the switch and after it.
    cfg.model.teacher.update(checkpoint=None, cache=None)
    model = build(cfg)
    check_step(model, cfg, digits[0] if digits else "cifar100")
    stage = copy.deepcopy(hook.stages[0])
    stage.pop("begin")
    if later:
        stage.teacher.update(checkpoint=None, cache=None)
    model.switch(**stage)
    check_step(model, cfg, digits[0] if digits else "cifar100")


PARTS = {
    "samples": dict(per_class=0.1),
    "classes": dict(classes=0.1),
    "entropy": dict(by="entropy", quantiles=(0.0, 0.5)),
}


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (PROJECT / "configs/data_amount").glob("*.py"))
)
def test_data_amount_config(name):
    """But for the wrapped data set it is the config that its name begins with."""
    cfg, dataset = load("data_amount", name), dataset_of(name)
    if name == "wrn10-1-half_samples":  # the student of noisy teachers on a CPU
        assert dict(cfg.items()) == dict(a_tenth("wrn10-1-half").items())
        return
    suffix = "_digits" if dataset == "digits" else ""
    base, part = name.removesuffix(suffix).rsplit("_", 1)
    plain = load("kd" if base.count("_") > 1 else "wrn", base + suffix)
    wrapper = cfg.train_dataloader.dataset
    assert wrapper.pop("type") == "mmkd_logit.DataSubset"
    assert wrapper.pop("dataset") == plain.train_dataloader.dataset
    if part == "entropy":
        teacher = "wrn16-2_digits" if suffix else "wrn28-4"
        assert wrapper.pop("scores") == f"work_dirs/{teacher}/seed0/logits/train.npz"
    assert wrapper == PARTS[part]
    cfg.train_dataloader.dataset = plain.train_dataloader.dataset
    assert dict(cfg.items()) == dict(plain.items())


@pytest.mark.parametrize(
    "name",
    [
        "kd/resnet34_resnet18_mse",
        "methods/wrn16-2_wrn10-1-thin_dkd_digits",
        "noisy_label/wrn16-1_sym40",
    ],
)
def test_a_child_in_another_project(name):
    """MMEngine gives what comes from a package the scope of that."""
    Path("child.py").write_text(f"_base_ = 'mmkd_logit::{name}.py'\n")
    cfg = build_config(build_parser().parse_args(["child.py"]))
    check_config(cfg)
    assert fingerprint_of(cfg) == fingerprint_of(
        build_config(build_parser().parse_args([f"mmkd_logit::{name}.py"]))
    )
    if cfg.model.get("teacher"):
        cfg.model.teacher.update(checkpoint=None, cache=None)
    check_step(build(cfg), cfg, dataset_of(name))


def test_each_method_is_there_on_both_data_sets():
    pairs = ("wrn28-4_wrn16-2_{}", "wrn16-2_wrn10-1-thin_{}_digits")
    assert {pair.format(method) for pair in pairs for method in METHOD} <= {*METHODS}


def networks_and_losses(name):
    """Return what each run of a chain trains, and by what, from its name."""
    *words, last = name.removeprefix("chain_").split("_")
    words += [last] * (last != "digits")
    if words[0] == "born-again":
        generations, loss = (2, "kl-t3") if last == "digits" else (8, "kl-t20")
        return [words[1]] * (1 + generations), [loss] * generations
    networks = [word for word in words if word not in LOSSES]
    return networks, [word for word in words if word in LOSSES]


@pytest.mark.parametrize("name", CHAINS)
def test_chain(name):
    """Each run trains what the name says, and its teacher is the student of the one before."""
    words = [f"mmkd_logit::sequential/{name}.py", "--train-teacher"]
    networks, losses = networks_and_losses(name)
    dataset = dataset_of(name)
    first, *runs = plan_runs(build_parser().parse_args(words)).values()
    check_network(first.cfg.model, networks[0], dataset)
    before = first.cfg
    for run, network, loss in zip(runs, networks[1:], losses, strict=True):
        assert run.cfg.model.loss_kd == LOSSES[loss]
        check_network(run.cfg.model.student, network, dataset)
        teacher = run.cfg.model.teacher
        assert teacher.checkpoint == f"{before.work_dir}/final.pth"
        assert teacher.get("cache") == (None if dataset == "digits" else CACHE["cache"])
        taught = before.model.get("student", before.model)
        found = TeacherSettings.from_config(teacher).resolve().model
        assert found.pop("data_preprocessor") == before.data_preprocessor
        assert found == {k: v for k, v in taught.to_dict().items() if k != "train_cfg"}
        before = run.cfg
    generations = [f"{before.work_dir}/generation{n}" for n in range(1, len(runs))]
    if "born-again" in name:
        assert [run.cfg.work_dir for run in runs] == [*generations, before.work_dir]
    else:
        assert runs[-2].cfg.work_dir == f"work_dirs/{Path(runs[-2].args.config).stem}/seed0"


def test_the_papers_chains_are_complete():
    chains = {name for name in CHAINS if name.startswith("chain_wrn28-4_wrn16-4_wrn16-2_")}
    assert {name.removeprefix("chain_wrn28-4_wrn16-4_wrn16-2_") for name in chains} == {
        "kl-t3_mse",
        "mse_kl-t3",
    }
    assert {"chain_born-again_wrn16-2", "chain_born-again_wrn10-1-thin_digits"} < set(CHAINS)


def test_the_papers_first_row_is_complete():
    first_row = [name for name in KD if name.startswith("wrn28-4_wrn16-2_")]
    assert {name.removeprefix("wrn28-4_wrn16-2_") for name in first_row} == set(LOSSES)


def test_table_1_has_all_its_students():
    for student in ("wrn16-2", "wrn16-4", "wrn28-2", "wrn28-4", "wrn40-6"):
        assert {f"wrn28-4_{student}_mse", f"wrn28-4_{student}_kl-t20"} <= set(KD)


def test_no_decay_on_one_dimensional_parameters():
    cfg = load("wrn", "wrn16-2")
    model = build(cfg)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    for name, parameter in model.named_parameters():
        expected = 0.0 if parameter.ndim == 1 else 5e-4
        assert decay[id(parameter)] == expected, name
    assert all(group["nesterov"] and group["momentum"] == 0.9 for group in optimizer.param_groups)


def test_data_of_the_recipe():
    cfg = load("wrn", "wrn16-2")
    loaders = (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader)
    assert all(loader.dataset.type == "mmkd_logit.InMemoryDataset" for loader in loaders)
    train, val, test = (loader.dataset.dataset for loader in loaders)
    crop, flip, pack = ({k: v for k, v in t.items() if k != "_scope_"} for t in train.pipeline)
    assert crop == dict(type="RandomCrop", crop_size=32, padding=4)
    assert flip == dict(type="RandomFlip", prob=0.5, direction="horizontal")
    assert pack == dict(type="PackInputs")
    mean, std = cfg.data_preprocessor.mean, cfg.data_preprocessor.std
    assert [round(x / 255, 4) for x in mean] == pytest.approx([0.5071, 0.4865, 0.4409], abs=2e-4)
    assert [round(x / 255, 4) for x in std] == pytest.approx([0.2673, 0.2564, 0.2762], abs=2e-4)
    assert (train.split, val.split, test.split) == ("train", "test", "test")
    assert [step.type for step in cfg.test_dataloader.dataset.pipeline] == ["PackInputs"]
    assert cfg.train_dataloader.sampler.sampler == dict(
        type="mmengine.DefaultSampler", shuffle=True
    )


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
    assert load("wrn", "wrn16-2").train_dataloader.dataset.dataset.data_root == "/somewhere/else"
    monkeypatch.delenv("CIFAR100_ROOT")
    cfg = load("wrn", "wrn16-2")
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.dataset.data_root == "data/cifar100"


def test_imagenet_root_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("IMAGENET_ROOT", "/somewhere/else")
    cfg = load("noisy_teacher", "resnet152_stop81_in1k")
    assert cfg.train_dataloader.dataset.dataset.data_root == "/somewhere/else"
    assert cfg.val_dataloader.dataset.dataset.data_root == "/somewhere/else"
    monkeypatch.delenv("IMAGENET_ROOT")
    cfg = load("kd", "resnet34_resnet18_mse_in1k")
    for loader, split in (
        (cfg.train_dataloader, "train"),
        (cfg.val_dataloader, "val"),
        (cfg.test_dataloader, "val"),
    ):
        dataset = loader.dataset.get("dataset", loader.dataset)
        assert (dataset.data_root, dataset.split) == ("data/imagenet", split)
    assert cfg.train_dataloader.dataset.type == "mmkd_logit.SeededDataset"
    assert cfg.train_dataloader.sampler.type == "mmkd_logit.SeededSampler"


def test_zoo_teacher_by_name_on_the_command_line():
    """As the page of configs/kd says."""
    from mmkd_logit.engine.config import find_missing_teachers
    from mmkd_logit.engine.train import build_config, build_parser

    words = ["--cfg-options", "model.teacher=resnet152_8xb32_in1k"]
    cfg = build_config(
        build_parser().parse_args(["mmkd_logit::kd/resnet152_resnet50_mse_in1k.py", *words])
    )
    assert not find_missing_teachers(cfg)
    (teacher,) = build(cfg).teachers
    assert teacher.network.model["backbone"]["depth"] == 152
    assert teacher.network.checkpoint.startswith("https://")
    assert not find_missing_teachers(load("kd", "resnet152_resnet50_mse_in1k"))


def test_digits_are_normalised_by_their_own_statistics():
    from mmkd_logit.datasets import Digits

    dataset = Digits(split="train")
    images = torch.stack([torch.as_tensor(dataset[i]["img"]) for i in range(len(dataset))]).float()
    preprocessor = load("wrn", "wrn16-2_digits").data_preprocessor
    assert preprocessor.mean[0] == pytest.approx(images.mean().item(), abs=0.5)
    assert preprocessor.std[0] == pytest.approx(images.std().item(), abs=0.5)


def test_real_cifar100(cifar100_root):
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


@pytest.mark.parametrize("folder", METAFILES)
def test_metafile_is_true(folder):
    import yaml

    init_default_scope("mmpretrain")

    path = PROJECT / "configs" / folder / "metafile.yml"
    entries = {entry["Name"]: entry for entry in yaml.safe_load(path.read_text())["Models"]}
    rows = map(json.loads, (PROJECT / "configs/paper/measured.jsonl").read_text().splitlines())
    measured = {Path(row["config"]).stem for row in rows if Path(row["config"]).parts[-2] == folder}
    missing = measured - set(entries)
    assert not missing, f"add entries to {path} for {missing}, whose results are published"
    for name, entry in entries.items():
        assert entry["Config"] == f"configs/{folder}/{name}.py"
        model = load(folder, name).model
        student = model.get("student", model)
        # Without weights, where the network can be made so: mmpretrain's cannot.
        ours = student.backbone.type.startswith("mmkd_logit.WideResNet")
        with torch.device("meta" if ours else "cpu"):
            network = MODELS.build(student)  # as in final.pth
        parameters = sum(p.numel() for p in network.parameters())
        assert entry["Metadata"]["Parameters"] == parameters, name
        data = dict(digits="Digits", in1k="ImageNet-1k", cifar100="CIFAR-100")[dataset_of(name)]
        assert entry["Metadata"]["Training Data"] == data
