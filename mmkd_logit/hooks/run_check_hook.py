"""What cannot work, said before the first iteration."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn

from mmkd_logit._arguments import first_line
from mmkd_logit.registry import HOOKS

from ._first_sample import (
    batch_of_one,
    evaluating,
    from_known_place,
    is_known,
    label_range,
    shape_of,
)
from ._start_weights import check_loaded, check_pretrained
from ._watched import trained_networks


@HOOKS.register_module()
class RunCheckHook(Hook):
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
    from mmkd_logit.models._finite_weights import broken_weights, describe_broken

    broken = broken_weights(network)
    if broken:
        source = runner._load_from or "its init_cfg"
        raise ValueError(
            f"the weights of the student {prefix.rstrip('/')}".rstrip()
            + f" are not finite at the beginning: {describe_broken(broken)} hold NaN or infinity. "
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
    from mmkd_logit.models._distiller_parts import as_logits

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
        logits = teacher.try_out(inputs)
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
            if later.inference.autocast != "float16":  # which many CPUs cannot
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
