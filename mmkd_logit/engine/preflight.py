"""Trying a run on one sample before it trains."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, CheckpointLoader, Runner
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from mmkd_logit.hooks.networks import trained_networks
from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import first_line, type_name

_MOST = 100_000  # samples whose labels are read one by one
_IGNORED = -100  # as a label, by torch's cross entropy
_KNOWN = {"torch", "torchvision", "mmengine", "mmcv", "mmpretrain", "mmkd_logit", "timm"}
_KNOWN |= {"transformers"}


def from_known_place(thing: Any) -> bool:
    """Whether a function or the class of an object is of a library whose ways are known here."""
    if thing is None:
        return True
    thing = getattr(thing, "func", thing)  # a functools.partial
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return str(module).partition(".")[0] in _KNOWN


def is_known(loader: Any) -> bool:
    """Whether one sample of a loader can be had without its sampler."""
    parts = (loader.sampler, loader.batch_sampler, loader.collate_fn)
    stream = isinstance(loader.dataset, IterableDataset)
    return not stream and all(map(from_known_place, parts))


def batch_of_one(loader: Any, what: str) -> Any:
    """Return a batch of one sample of a loader, whose workers and sampler are left alone.

    Images in memory are not moved: a black one of their size stands for them.
    """
    from mmkd_logit.datasets import SampleKey
    from mmkd_logit.datasets.wrapper import SampleWrapper

    dataset = loader.dataset
    _refuse_empty(loader, what)
    if isinstance(dataset, SampleWrapper) and dataset.in_memory:
        return dict(inputs=torch.zeros((1, *dataset.picture_shape), dtype=torch.uint8))
    key: Any = SampleKey(0, 0, 0) if getattr(dataset, "seeded", False) else 0
    try:
        return loader.collate_fn([dataset[key]])
    except Exception as error:  # of files, transforms or the data set, whatever it is
        raise ValueError(
            f"the first sample of the {what} data cannot be read ({first_line(error)}); check "
            "data_root, the files and the transforms"
        ) from error


def _refuse_empty(loader: Any, what: str) -> None:
    try:
        batches = len(loader)
    except TypeError:  # of an endless stream
        return
    if not batches:
        raise ValueError(
            f"the {what} loader gives no batch: {len(loader.dataset)} samples with "
            f"batch_size={loader.batch_size} and drop_last={loader.drop_last}; lower batch_size, "
            "or set drop_last=False"
        )


def label_range(dataset: Any) -> tuple[int, int] | None:
    """Return the smallest and the largest label of a data set, or None where nobody knows.

    Labels of -100, which mmpretrain's losses leave out, do not count.
    """
    from mmkd_logit.datasets.wrapper import SampleWrapper

    try:
        if isinstance(dataset, SampleWrapper):  # which have them at hand
            labels = torch.as_tensor(dataset.get_gt_labels())
        else:
            places = range(0, len(dataset), 1 + len(dataset) // _MOST)
            labels = torch.as_tensor([dataset.get_data_info(i)["gt_label"] for i in places])
    except (AttributeError, TypeError, ValueError, KeyError, RuntimeError):
        return None  # several labels a sample, or none: not ours to judge
    if labels.ndim != 1 or labels.is_floating_point():
        return None
    labels = labels[labels != _IGNORED]
    return (int(labels.min()), int(labels.max())) if len(labels) else None


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Let a network predict without leaving a trace in it, or in the random generators."""
    # Not above: command lines read the hooks before they silence mmpretrain's warnings.
    from mmkd_logit.models.build import preserve_random_state

    modes = [(module, module.training) for module in network.modules()]
    own = network.training
    try:
        with torch.no_grad(), preserve_random_state():
            network.eval()
            yield
    finally:
        network.train(own)
        for module, mode in modes:
            module.training = mode


def shape_of(inputs: Any) -> str:
    """Describe images for a message."""
    first = inputs[0] if len(inputs) else inputs
    return str(tuple(first.shape)) if isinstance(first, Tensor) else type(first).__name__


# Whether a checkpoint that training begins with is of the network that is trained.


# Of another network next to nothing fits; what is begun with a part of another's has more.
_FIT = 0.1


def check_loaded(model: nn.Module, checkpoint: Any, source: str) -> None:
    """Compare a checkpoint with a model, before MMEngine loads what fits and warns of the rest.

    Fine-tuning may bring another head, so the head is left out. Networks that rename what they
    load are not looked at.
    """
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f"{source} holds a {type(checkpoint).__name__} and no weights; a checkpoint is a dict "
            "with a state_dict, or a state_dict"
        )
    state = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, Mapping) or _renames(model):
        return
    given = {str(key).removeprefix("module."): value for key, value in state.items()}
    wanted = {
        name: value
        for name, value in model.named_parameters()
        if not name.startswith(("head.", "feature_adapters."))
    }
    misfits = [
        name
        for name, value in wanted.items()
        if not isinstance(given.get(name), Tensor) or given[name].shape != value.shape
    ]
    count = sum(value.numel() for value in wanted.values())
    lacking = sum(wanted[name].numel() for name in misfits)
    if count - lacking < _FIT * count:
        first = misfits[0]
        theirs = given.get(first)
        what = f"has {tuple(theirs.shape)}" if isinstance(theirs, Tensor) else "has none"
        raise ValueError(
            f"{source} is of another network: {count - lacking} of {count} weights fit; of "
            f"{first}, {tuple(wanted[first].shape)}, it {what}. Take a checkpoint of this network, "
            "or train without it"
        )


def _renames(model: nn.Module) -> bool:
    return any(module._load_state_dict_pre_hooks for module in model.modules())


def check_pretrained(cfg: Any, model: nn.Module) -> None:
    """Do the same with the files that a model's config names in ``init_cfg``."""
    for spec, module in _places(cfg, model):
        given = spec.get("init_cfg")
        for init in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(init, dict) and type_name(init) == "Pretrained":
                _check_file(init, module)


def _places(cfg: Any, model: nn.Module) -> Iterator[tuple[dict, nn.Module]]:
    if not isinstance(cfg, dict):
        return
    if isinstance(cfg.get("students"), dict):
        students: Any = model.get_submodule("students")
        for name, student in cfg["students"].items():
            yield from _places(student, students[name])
        return
    network: Any = cfg.get("student", cfg)  # a distiller has its student's modules
    if isinstance(network, dict):
        yield network, model
        backbone = getattr(model, "backbone", None)
        if isinstance(network.get("backbone"), dict) and isinstance(backbone, nn.Module):
            yield network["backbone"], backbone


def _check_file(init: dict, module: nn.Module) -> None:
    source = str(init["checkpoint"])
    checkpoint = CheckpointLoader.load_checkpoint(source, map_location="cpu")
    state = checkpoint.get("state_dict", checkpoint)
    prefix = init.get("prefix")
    if prefix:
        begin = f"{prefix.rstrip('.')}."
        state = {key.removeprefix(begin): v for key, v in state.items() if key.startswith(begin)}
    check_loaded(module, state, f"{source} of init_cfg")


# What cannot work, said before the first iteration.


# The second name is that of version 0.1.0, which dumped configs hold.
@HOOKS.register_module(name=["PreflightHook", "RunCheckHook"])
class PreflightHook(Hook):
    """Refuse data and weights that a model cannot use, before training and before testing.

    Otherwise they would end a run at its first iteration, when it has begun to write over an
    earlier one, or after an epoch, or would be passed over. Looked at are

    - the weights, which must be finite, whoever gave them,
    - ``load_from`` and ``init_cfg=dict(type='Pretrained')``: where a file has less than a tenth
      of the weights outside the head, it is of another network, and MMEngine would only warn,
    - one sample of the training and of the validation data, whose image passes preprocessor,
      student and teachers in evaluation mode, without leaving a trace in them or in the random
      generators: channels, sizes and the number of classes must agree, logits be finite,
    - the labels, which must be classes of the network, and the loader, which must give batches.

    It tries classifiers of mmpretrain and ours, and distillers, on data that mmengine, mmpretrain
    or we join to batches; others may want what it does not know. ``tools/train.py`` and
    ``tools/test.py`` add it by themselves.

    Raises:
        ValueError: If something of this does not fit.
    """

    changes_training = False

    # Its checks come before other hooks clear the work folder of an earlier run.
    priority = "VERY_HIGH"

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare a checkpoint with the model that is to be trained from it."""
        if isinstance(runner._train_loop, BaseLoop) and not runner._resume:
            check_loaded(_unwrapped(runner), checkpoint, str(runner._load_from))

    def before_train(self, runner: Runner) -> None:
        """Check weights and data."""
        for prefix, network in trained_networks(runner).items():
            _check_weights(network, prefix, runner)
        if not runner._resume and runner._load_from is None:
            check_pretrained(runner.cfg.get("model"), _unwrapped(runner))
        _check_data(runner, runner.train_dataloader, "training")
        if runner.val_loop is not None:
            _check_data(runner, runner.val_dataloader, "validation")

    def before_test(self, runner: Runner) -> None:
        """Check weights and test data."""
        for prefix, network in trained_networks(runner).items():
            _check_weights(network, prefix, runner)
        _check_data(runner, runner.test_dataloader, "test", teach=False)


def _unwrapped(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _check_weights(network: nn.Module, prefix: str, runner: Runner) -> None:
    from mmkd_logit.models.teacher import broken_weights

    broken = broken_weights(network)
    if broken:
        source = runner._load_from or "its init_cfg"
        raise ValueError(
            f"the weights of the student {prefix.rstrip('/')}".rstrip()
            + f" are not finite at the beginning: {broken} hold NaN or infinity. "
            f"They come from {source}; take a checkpoint from before training diverged"
        )


def _check_data(runner: Runner, loader: Any, what: str, teach: bool = True) -> None:
    model: Any = _unwrapped(runner)
    networks = {
        prefix: network
        for prefix, network in trained_networks(runner).items()
        if _can_be_tried(getattr(network, "student", network))
    }
    if not networks or not is_known(loader):
        return
    with evaluating(model):
        batch = batch_of_one(loader, what)
        inputs = _prepare(model, batch, what)
        for prefix, network in networks.items():
            classes = _try_network(network, inputs, f"student {prefix.rstrip('/')}".strip(), what)
            if classes is None:
                continue
            _check_labels(loader.dataset, classes, what)
            for teacher, place in _teachers(network, runner) if teach else ():
                # Those of stages to come stay on the CPU until they are needed.
                images = inputs.cpu() if place == "cpu" else inputs
                theirs = _try_teacher(teacher, images, what)
                if theirs != classes:
                    raise ValueError(
                        f"teacher {teacher.name} gives logits of {theirs} classes and the student "
                        f"{classes}; distilling logits needs the same classes"
                    )


def _can_be_tried(network: nn.Module) -> bool:
    """Whether a network surely takes an image by itself, in evaluation mode."""
    from mmpretrain.models.classifiers import BaseClassifier

    known = from_known_place(network) and from_known_place(getattr(network, "head", None))
    return isinstance(network, BaseClassifier) and known


def _prepare(model: Any, batch: Any, what: str) -> Any:
    """Return the images as the networks get them."""
    try:
        inputs = model.data_preprocessor(batch, False)["inputs"]
    except Exception as error:  # of torch, mostly
        images = batch.get("inputs") if isinstance(batch, dict) else None
        shape = "?" if images is None else shape_of(images)
        mean = getattr(model.data_preprocessor, "mean", None)
        values = len(mean) if isinstance(mean, Tensor) else 0
        raise ValueError(
            f"data_preprocessor, with {values} values as mean, cannot take the {what} images, "
            f"(C, H, W) = {shape} ({first_line(error)}); give it one mean and std a channel"
        ) from error
    if isinstance(inputs, Tensor) and not torch.isfinite(inputs).all():
        raise ValueError(
            f"the first {what} image holds NaN or infinity once it is normalised; look at mean and "
            "std of data_preprocessor, and at the data's transforms"
        )
    return inputs


def _try_network(network: Any, inputs: Any, who: str, what: str) -> int | None:
    """Return for how many classes a network gives logits, or None if it gives something else."""
    from mmkd_logit.models.build import as_logits

    distils = hasattr(network, "student")
    try:
        output = getattr(network, "student", network)(inputs, mode="tensor")
        logits = as_logits(output, f"the {who}") if distils else output
    except Exception as error:
        raise ValueError(
            f"the {who} cannot take the {what} images, (C, H, W) = {shape_of(inputs)} "
            f"({first_line(error)}); make backbone.in_channels, the head and the data's transforms "
            "agree"
        ) from error
    if not distils and not (isinstance(logits, Tensor) and logits.ndim == 2):
        return None
    return _classes_of(logits, f"the {who}")


def _try_teacher(teacher: Any, inputs: Tensor, what: str) -> int:
    try:
        logits = teacher.dry_run(inputs)
    except Exception as error:
        raise ValueError(
            f"teacher {teacher.name} cannot take the {what} images, (C, H, W) = "
            f"{shape_of(inputs)} ({first_line(error)}); it must be trained on such images"
        ) from error
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"the logits of teacher {teacher.name} for the first {what} image are not finite; "
            "look at its weights and at its config's data_preprocessor"
        )
    return _classes_of(logits, f"teacher {teacher.name}")


def _classes_of(logits: Tensor, whose: str) -> int:
    if logits.ndim != 2:
        raise ValueError(f"{whose} gives logits of shape {tuple(logits.shape)}, not (N, K)")
    return logits.shape[1]


def _teachers(network: Any, runner: Runner) -> list[tuple[Any, str]]:
    """List the teachers that the run has or will have, and where they are to be tried."""
    if not hasattr(network, "teachers"):
        return []
    now = network.teachers if network.needs_teacher else []
    found = [(each, "here") for each in now]
    for hook in runner.hooks:
        for later in getattr(hook, "later_teachers", list)():
            found.append((later, "cpu"))
    return found


def _check_labels(dataset: Any, classes: int, what: str) -> None:
    found = label_range(dataset) if classes > 1 else None  # of one logit, labels are 0 and 1
    if found is not None and not 0 <= found[0] <= found[1] < classes:
        raise ValueError(
            f"the {what} labels are from {found[0]} to {found[1]} and the network has {classes} "
            f"classes, 0 to {classes - 1}; set num_classes of the head to {found[1] + 1}, or take "
            "other data"
        )
