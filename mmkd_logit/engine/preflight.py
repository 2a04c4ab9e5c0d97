"""Checking a run before its first iteration: weights, samples, losses and metrics."""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.optim import ReduceOnPlateauParamScheduler
from mmengine.runner import BaseLoop, CheckpointLoader, Runner
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from mmkd_logit.checkpoint import find_state_dict, weights_for
from mmkd_logit.hooks.logit_outputs import LogitOutputsHook
from mmkd_logit.hooks.networks import trained_networks, unwrapped
from mmkd_logit.hooks.sequential_teacher import LOOKED_AT
from mmkd_logit.losses.base import LogitLoss
from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import check_flag, did_you_mean, first_line, type_name

_FIT = 0.1  # of another network next to nothing fits; what begins with a part of it has more
_MOST_LABELS = 100_000  # that are read one by one
_IGNORED_LABEL = -100  # by torch's cross entropy
_SAMPLES = 4  # that are tried: losses between samples need several
_STEEPEST = 1e4  # of a gradient in the logits of a sample, where 1 is usual
_KNOWN = {"torch", "torchvision", "mmengine", "mmcv", "mmpretrain", "mmkd_logit", "timm"}
_KNOWN |= {"transformers"}


# The second name is that of version 0.1.0, which dumped configs hold.
@HOOKS.register_module(name=["PreflightHook", "RunCheckHook"])
class PreflightHook(Hook):
    """Refuse data and weights that a model cannot use, before training and before testing.

    Otherwise they would end a run at its first iteration, when it has begun to write over an
    earlier one, or after an epoch, or would be ignored. Checked are

    - the weights, which must be finite,
    - ``load_from`` and ``init_cfg=dict(type='Pretrained')``: where a file has less than a tenth
      of the weights outside the head, it is of another network, and MMEngine would only warn,
    - the classes that ``init_cfg`` names as ``layer``, which must exist,
    - the values that ``log_processor.custom_cfg`` names, with a warning after an epoch,
    - the first samples of the training and of the validation data, whose images pass preprocessor,
      student and teachers in evaluation mode, without a change to them or to the random
      generators: channels, sizes and the number of classes must agree, logits be finite,
    - the labels, which must be classes of the network, and the loader, which must give batches,
    - the distillation loss of these samples, whose gradient must be finite and of a size that
      trains; where it is zero the student learns nothing, or equals its teacher,
    - the metrics, which must be able to measure the samples, and those that ``save_best``, early
      stopping or a schedule follows, which must be among them.

    Tried are classifiers of mmpretrain and ours, and distillers, on data that mmengine, mmpretrain
    or we join to batches, and metrics of the same packages; what others need is not known.
    ``tools/train.py`` and ``tools/test.py`` add this hook.

    Args:
        test: Whether the run is tested after training, so that the test's data and metrics are
            tried before.

    Raises:
        ValueError: If something of this does not fit.
    """

    changes_training = False

    # Its checks come before other hooks clear the work folder of an earlier run.
    priority = "VERY_HIGH"

    def __init__(self, test: bool = False) -> None:
        self.test = check_flag("test", test)
        self._averaged: set[str] = set()  # by log lines, as their settings say

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare a checkpoint with the model that is to be trained from it."""
        if isinstance(runner._train_loop, BaseLoop) and not runner._resume:
            model = unwrapped(runner)
            check_loaded(model, checkpoint, str(runner._load_from))
            checkpoint["state_dict"] = weights_for(model, checkpoint)

    def before_train(self, runner: Runner) -> None:
        """Check weights, data, loss and metrics."""
        _check_weights(runner)
        custom: list[dict] = runner.log_processor.custom_cfg
        self._averaged = {settings["data_src"] for settings in custom}
        if not runner._resume and runner._load_from is None:
            for network in trained_networks(runner).values():
                _check_initialization(network)
        _Trial(runner, runner.train_dataloader, "training").run()
        if runner.val_loop is not None:
            found = _Trial(runner, runner.val_dataloader, "validation", runner.val_evaluator).run()
            _check_followed(runner, found)
        if self.test:
            _Trial(runner, runner.test_dataloader, "test", runner.test_evaluator).run()
        elif isinstance(runner._test_evaluator, (dict, list)):
            runner.build_evaluator(copy.deepcopy(runner._test_evaluator))

    def after_train_epoch(self, runner: Runner) -> None:
        """Warn, once, of what log lines are to average and no iteration logs."""
        logged = {name.partition("/")[2] for name in runner.message_hub.log_scalars}
        for name in sorted({name.removeprefix("train/") for name in self._averaged} - logged):
            if name.rpartition("/")[2].removeprefix("loss_") not in LOOKED_AT:
                runner.logger.warning(
                    f"log_processor.custom_cfg names {name!r}, which is not logged"
                    f"{did_you_mean(name, logged)}; logged are {', '.join(sorted(logged))}"
                )
        self._averaged = set()

    def before_test(self, runner: Runner) -> None:
        """Check weights and test data."""
        _check_weights(runner)
        _Trial(runner, runner.test_dataloader, "test").run()


def _check_weights(runner: Runner) -> None:
    from mmkd_logit.models.teacher import broken_weights

    for prefix, network in trained_networks(runner).items():
        broken = broken_weights(network)
        if broken:
            source = runner._load_from or "its init_cfg"
            raise ValueError(
                f"the weights of {_student(prefix)} are not finite at the beginning: "
                f"{broken} hold NaN or infinity. They come from {source}; take a "
                "checkpoint from before training diverged"
            )


def _student(prefix: str) -> str:
    return f"the student {prefix.rstrip('/')}".rstrip()


def _check_initialization(network: Any) -> None:
    """Compare the files that ``init_cfg`` names with the modules that load them, and its layers.

    One ``init_cfg`` serves networks with and without batch norm, so a layer need not be there.
    """
    kinds = {each.__name__ for each in _subclasses(nn.Module)}
    for module in getattr(network, "student", network).modules():
        given = getattr(module, "init_cfg", None)
        for init in given if isinstance(given, (list, tuple)) else [given]:
            if type_name(init) == "Pretrained" and isinstance(init, dict):
                source = str(init["checkpoint"])
                prefix = (init.get("prefix") or "").rstrip(".") + "."
                checkpoint = CheckpointLoader.load_checkpoint(source, map_location="cpu")
                state = find_state_dict(checkpoint)
                if prefix != ".":
                    names = [name for name in state if name.startswith(prefix)]
                    state = {name.removeprefix(prefix): state[name] for name in names}
                check_loaded(module, state, f"{source} of init_cfg")
            layers = init.get("layer") if isinstance(init, dict) else None
            for name in [layers] if isinstance(layers, str) else layers or ():
                if name not in kinds:
                    raise ValueError(
                        f"layer={name!r} in the init_cfg of {type(module).__name__} names no class "
                        f"of layers{did_you_mean(name, kinds)}; take one such as 'Linear'"
                    )


def _subclasses(kind: type[nn.Module]) -> Iterator[type[nn.Module]]:
    for each in kind.__subclasses__():
        yield each
        yield from _subclasses(each)


def check_loaded(model: nn.Module, checkpoint: Any, source: str) -> None:
    """Compare a checkpoint with a model, before MMEngine loads what fits and warns of the rest.

    Fine-tuning may bring another head, so the head is left out. Networks that rename what they
    load are skipped.
    """
    given = weights_for(model, checkpoint)
    if given and any(module._load_state_dict_pre_hooks for module in model.modules()):
        return
    own = {
        name: value
        for name, value in model.named_parameters()
        if not name.startswith(("head.", "feature_adapters."))
    }
    shapes = {name: getattr(given.get(name), "shape", None) for name in own}
    misfits = [name for name, value in own.items() if shapes[name] != value.shape]
    count = sum(value.numel() for value in own.values())
    fitting = count - sum(own[name].numel() for name in misfits)
    if fitting < _FIT * count:
        first = misfits[0]
        theirs = "none" if first not in given else tuple(shapes[first] or ())
        raise ValueError(
            f"{source} is of another network: {fitting} of {count} weights fit; of {first}, "
            f"{tuple(own[first].shape)}, it has {theirs}. Take a checkpoint of this network, or "
            "train without it"
        )


class _Trial:
    """The first samples of a loader, as a run's networks, losses and metrics meet them."""

    def __init__(self, runner: Runner, loader: Any, what: str, evaluator: Any = None) -> None:
        self.runner, self.loader, self.what, self.evaluator = runner, loader, what, evaluator
        self.model = unwrapped(runner)
        self.networks = {
            prefix: network
            for prefix, network in trained_networks(runner).items()
            if _can_be_tried(getattr(network, "student", network))
        }

    def run(self) -> dict[str, Any] | None:
        """Return the metrics of the samples, or None where not all could be tried."""
        if not self.networks or not is_known(self.loader):
            return None
        found: dict[str, Any] | None = {}
        with _evaluating(self.model):
            batch = _first_batch(self.loader, self.what)
            inputs = _preprocess(self.model.data_preprocessor, copy.deepcopy(batch), self.what)
            _check_crop(self.loader.dataset, inputs, self.what)
            for prefix, network in self.networks.items():
                if not self._check_network(prefix, network, inputs):
                    found = None  # a head that is not known here
                elif self.evaluator is not None:
                    measured = self._measure(prefix, network, batch)
                    found = None if found is None or measured is None else found | measured
        return found

    def _check_network(self, prefix: str, network: Any, inputs: Any) -> bool:
        """Check what a network and its teachers compute; return whether these are logits."""
        what, who, student = self.what, _student(prefix), getattr(network, "student", network)
        advice = "make backbone.in_channels, the head and the data's transforms agree"
        logits = _logits_of(partial(student, mode="tensor"), inputs, who, what, advice)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            if student is network:
                return False
            raise ValueError(
                f"{who} does not give one (N, K) tensor of logits; only classifiers with one "
                "linear output can be distilled"
            )
        classes = logits.shape[1]
        _check_labels(self.loader.dataset, classes, what)
        given = getattr(student.data_preprocessor, "num_classes", None)
        if given not in (None, classes):
            raise ValueError(
                f"data_preprocessor.num_classes is {given} and {who} gives {classes} logits; set "
                f"it to {classes}, or leave it out"
            )
        taught = []
        for teacher, on_cpu in _teachers(network, self.runner) if what != "test" else ():
            found = _check_teacher(teacher, inputs.cpu() if on_cpu else inputs, classes, what)
            taught += [] if on_cpu else [found]
        if what == "training" and taught and not self.runner._resume:
            _check_gradient(network, logits, taught, who, self.runner)
        return True

    def _measure(self, prefix: str, network: Any, batch: Any) -> dict[str, Any] | None:
        """Measure the samples with copies of the metrics."""
        observers = [hook for hook in self.runner.hooks if isinstance(hook, LogitOutputsHook)]
        for hook in observers:
            hook.before_test(self.runner)
        try:
            samples = network.val_step(copy.deepcopy(batch))
        finally:
            for hook in observers:
                hook.after_test(self.runner)
        found, all_tried = {}, True
        given = self.evaluator[prefix.rstrip("/")] if prefix else self.evaluator
        for metric in given.metrics:
            writes = isinstance(metric, DumpResults) or hasattr(metric, "out_file")
            if writes or not _is_library(metric):
                all_tried = False
                continue
            measured = _try(
                f"{type(metric).__name__} cannot measure the first {self.what} images",
                "change its settings in the evaluator",
                _evaluate,
                copy.deepcopy(metric),
                given.dataset_meta,
                samples,
            )
            found.update(measured)
        return found if all_tried else None


def _evaluate(metric: Any, dataset_meta: Any, samples: Sequence) -> dict[str, Any]:
    trial = Evaluator([metric])
    trial.dataset_meta = dataset_meta
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # few samples, and not of all classes
        trial.process(data_samples=samples, data_batch=None)
        return trial.evaluate(len(samples))


def _check_followed(runner: Runner, found: dict[str, Any] | None) -> None:
    """Refuse hooks and schedulers that follow a metric which the validation does not give."""
    schedulers = runner.param_schedulers
    for each in (*runner.hooks, *(schedulers if isinstance(schedulers, list) else ())):
        followed = [] if not getattr(each, "save_best", None) else list(each.key_indicators)
        if isinstance(each, (EarlyStoppingHook, ReduceOnPlateauParamScheduler)):
            followed.append(each.monitor)
        missing = [name for name in followed if name != "auto" and name not in (found or followed)]
        if missing:
            raise ValueError(
                f"{type(each).__name__} follows the metric {missing[0]!r}, which the validation "
                f"does not give{did_you_mean(missing[0], found or ())}; it gives "
                f"{', '.join(found or ()) or 'none'}"
            )


def _check_gradient(
    network: Any, logits: Tensor, taught: list[Tensor], who: str, runner: Runner
) -> None:
    """Refuse a distillation loss that cannot teach from the student's first logits."""
    from mmkd_logit.models.distiller import join_logits

    loss, student = network.loss_kd, logits.detach().clone().requires_grad_()
    if not isinstance(loss, LogitLoss) or not network.alpha:
        return
    teacher = join_logits(taught, network.ensemble).to(student)
    labels = [teacher.argmax(1)] if loss.needs_labels else []
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(student, teacher, *labels).sum(), student)
    steepest = float(gradient.abs().max())
    where = f"the gradient of {type(loss).__name__} for the first logits of {who}"
    if not steepest <= _STEEPEST:
        raise ValueError(
            f"{where} is {steepest:.3g}, with which no training begins; look at the settings of "
            "loss_kd, and at how the student's head and the teacher's logits are scaled"
        )
    if steepest > 0:
        return
    if torch.equal(student, student[:, :1].expand_as(student)) and network.alpha == 1:
        raise ValueError(
            f"{where} is zero and stays so: all its logits are equal. Initialise the head "
            "otherwise, take another loss_kd, or alpha < 1"
        )
    runner.logger.warning(f"{where} is zero; do student and teacher have the same weights?")


def _can_be_tried(network: Any) -> bool:
    """Whether a network surely takes an image by itself, in evaluation mode."""
    from mmpretrain.models.classifiers import BaseClassifier

    known = _is_library(network) and _is_library(getattr(network, "head", None))
    return isinstance(network, BaseClassifier) and known


def _is_library(thing: Any) -> bool:
    """Whether a function, or the class of an object, is of a library that is known here."""
    thing = getattr(thing, "func", thing)  # a functools.partial
    module = getattr(thing, "__module__", None) or type(thing).__module__
    return thing is None or str(module).partition(".")[0] in _KNOWN


def is_known(loader: Any) -> bool:
    """Whether one sample of a loader can be had without its sampler."""
    parts = (loader.sampler, loader.batch_sampler, loader.collate_fn)
    return not isinstance(loader.dataset, IterableDataset) and all(map(_is_library, parts))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Let a network predict without a change to it, or to the random generators."""
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


def _try(problem: str, advice: str, run: Callable, *args: Any) -> Any:
    """Call what may raise anything, and make a line of it."""
    try:
        return run(*args)
    except Exception as error:
        raise ValueError(f"{problem} ({first_line(error)}); {advice}") from error


def _first_batch(loader: Any, what: str) -> Any:
    """Return a batch of the first samples, without the workers and the sampler of the loader."""
    from mmkd_logit.datasets import SampleKey
    from mmkd_logit.datasets.wrapper import SampleWrapper

    dataset, batches = loader.dataset, None
    with suppress(TypeError):  # an endless sampler has no length
        batches = len(loader)
    if batches == 0:
        raise ValueError(
            f"the {what} loader gives no batch: {len(dataset)} samples with "
            f"batch_size={loader.batch_size} and drop_last={loader.drop_last}; lower batch_size, "
            "or set drop_last=False"
        )
    keys: list[Any] = list(range(min(_SAMPLES, len(dataset))))
    if isinstance(dataset, SampleWrapper) and (dataset.in_memory or dataset.seeded):
        keys = [SampleKey(0, 0, index) for index in keys]
    fetch = getattr(dataset, "__getitems__", lambda keys: [dataset[key] for key in keys])
    return _try(
        f"the first samples of the {what} data cannot be read",
        "check data_root, the files and the transforms",
        lambda: loader.collate_fn(fetch(keys)),
    )


def _shape_of(inputs: Any) -> str:
    first = inputs[0] if inputs is not None and len(inputs) else None
    return f"(C, H, W) = {tuple(first.shape) if isinstance(first, Tensor) else '?'}"


def _preprocess(preprocessor: Any, batch: Any, what: str) -> Any:
    """Return the images as the networks get them."""
    images = batch.get("inputs") if isinstance(batch, dict) else None
    inputs = _try(
        f"data_preprocessor cannot take the {what} images, {_shape_of(images)}",
        "give it one mean and std a channel",
        lambda: preprocessor(batch, False)["inputs"],
    )
    if isinstance(inputs, Tensor) and not torch.isfinite(inputs).all():
        raise ValueError(
            f"the first {what} image holds NaN or infinity once it is normalised; look at mean and "
            "std of data_preprocessor, and at the data's transforms"
        )
    return inputs


def _check_teacher(teacher: Any, inputs: Tensor, classes: int, what: str) -> Tensor:
    who, advice = f"teacher {teacher.name}", "it must be trained on such images"
    logits = _logits_of(teacher.dry_run, inputs, who, what, advice)
    if logits.ndim != 2 or logits.shape[1] != classes:
        raise ValueError(
            f"{who} gives logits of {logits.shape[-1]} classes and the student {classes}; "
            "distilling logits needs the same classes"
        )
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"the logits of {who} for the first {what} image are not finite; look at its weights "
            "and at its config's data_preprocessor"
        )
    return logits


def _logits_of(network: Callable, inputs: Any, who: str, what: str, advice: str) -> Any:
    problem = f"{who} cannot take the {what} images, {_shape_of(inputs)}"
    output = _try(problem, advice, network, inputs)
    return getattr(output, "logits", output)  # Hugging Face wraps them


def _check_crop(dataset: Any, inputs: Any, what: str) -> None:
    """Refuse a crop that is larger than the images, which come out as they are."""
    for transform in reversed(getattr(getattr(dataset, "pipeline", None), "transforms", [])):
        size = getattr(transform, "crop_size", None)
        if "Resize" in type(transform).__name__:
            return
        if size is not None and isinstance(inputs, Tensor):
            sides = sorted([size, size] if isinstance(size, int) else size)
            if any(got < side for got, side in zip(sorted(inputs.shape[-2:]), sides, strict=True)):
                raise ValueError(
                    f"{type(transform).__name__}(crop_size={size}) is larger than the {what} "
                    f"images, which stay {tuple(inputs.shape[-2:])}; lower crop_size, or pad"
                )
            return


def _teachers(network: Any, runner: Runner) -> Iterator[tuple[Any, bool]]:
    """Give the teachers of a run, and whether they are on the CPU until their stage begins."""
    if not hasattr(network, "teachers"):
        return
    if network.needs_teacher:
        yield from ((teacher, False) for teacher in network.teachers)
    for hook in runner.hooks:
        yield from ((teacher, True) for teacher in getattr(hook, "later_teachers", list)())


def _check_labels(dataset: Any, classes: int, what: str) -> None:
    found = _label_range(dataset) if classes > 1 else None  # of one logit, labels are 0 and 1
    if found is not None and not 0 <= found[0] <= found[1] < classes:
        raise ValueError(
            f"the {what} labels are from {found[0]} to {found[1]} and the network has {classes} "
            f"classes, 0 to {classes - 1}; set num_classes of the head to {found[1] + 1}, or take "
            "other data"
        )


def _label_range(dataset: Any) -> tuple[int, int] | None:
    """Return the smallest and the largest label, or None where samples have several or none."""
    from mmkd_logit.datasets.wrapper import SampleWrapper

    try:
        if isinstance(dataset, SampleWrapper):  # which have them at hand
            labels = torch.as_tensor(dataset.get_gt_labels())
        else:
            places = range(0, len(dataset), 1 + len(dataset) // _MOST_LABELS)
            labels = torch.as_tensor([dataset.get_data_info(i)["gt_label"] for i in places])
    except (AttributeError, TypeError, ValueError, KeyError, RuntimeError):
        return None
    if labels.ndim != 1 or labels.is_floating_point():
        return None
    labels = labels[labels != _IGNORED_LABEL]
    return (int(labels.min()), int(labels.max())) if len(labels) else None
