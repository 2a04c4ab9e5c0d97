"""An optimizer for each student of a group."""

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapperDict, build_optim_wrapper
from torch import nn

from mmkd_logit.registry import OPTIM_WRAPPER_CONSTRUCTORS

_SHARED = ("type", "dtype")  # what the one forward pass takes from the optimizers


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class StudentGroupOptimConstructor:
    """Build the optimizers of a :class:`StudentGroup`, each as for the student alone.

    Args:
        optim_wrapper_cfg: ``dict(students={NAME: config of an optimizer wrapper})``.
        paramwise_cfg: None; it stands in the config of each.

    Raises:
        ValueError: If the configs are not those of the students, differ in precision, accumulate
            gradients or scale the loss.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        given = isinstance(optim_wrapper_cfg, Mapping)
        students = optim_wrapper_cfg.get("students") if given else None
        if not isinstance(students, Mapping) or not students or paramwise_cfg is not None:
            raise ValueError(
                "the optimizers of a StudentGroup are dict(constructor="
                "'mmkd_logit.StudentGroupOptimConstructor', students={NAME: dict(optimizer=...)}), "
                f"got {optim_wrapper_cfg!r} and paramwise_cfg={paramwise_cfg!r}"
            )
        for name, cfg in students.items():
            if not isinstance(cfg, Mapping) or not isinstance(cfg.get("optimizer"), Mapping):
                raise ValueError(
                    f"the optimizer of {name} must be dict(optimizer=dict(type=..., lr=...)), got "
                    f"{cfg!r}"
                )
        self.students = {name: dict(cfg) for name, cfg in students.items()}

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        """Build them.

        Args:
            model: The group, wrapped or not.

        Raises:
            ValueError: As of the class.
        """
        group: Any = model.module if is_model_wrapper(model) else model
        if set(group.students) != set(self.students):
            raise ValueError(
                f"there are optimizers for {sorted(self.students)} and students "
                f"{sorted(group.students)}"
            )
        wrappers = {}
        for name, cfg in self.students.items():
            wrappers[name] = build_optim_wrapper(group.students[name], copy.deepcopy(cfg))
            if cfg.get("accumulative_counts", 1) != 1 or isinstance(
                wrappers[name], AmpOptimWrapper
            ):
                raise ValueError(
                    f"the optimizer of {name} accumulates gradients or scales its loss; train it "
                    "in a run of its own"
                )
            if hasattr(wrappers[name], "grad_name"):  # under which the norm is logged
                wrappers[name].grad_name = f"{name}/{wrappers[name].grad_name}"
        precisions = {tuple(str(cfg.get(key)) for key in _SHARED) for cfg in self.students.values()}
        if len(precisions) > 1:
            raise ValueError(f"students of a group share one precision, got {sorted(precisions)}")
        return OptimWrapperDict(**wrappers)
