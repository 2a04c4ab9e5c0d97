"""Several students on one pass of their teacher."""

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import BaseModel, MMDistributedDataParallel, is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapperDict, build_optim_wrapper
from torch import Tensor, nn

from mmkd_logit.registry import MODEL_WRAPPERS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from mmkd_logit.utils.arguments import type_name

from .build import build_student, join_logits
from .distiller import LogitDistiller, samples_for_loss
from .parts import preserve_random_state
from .teacher import FrozenTeacher
from .teacher_cache import describe_preprocessor


@MODELS.register_module()
class StudentGroup(BaseModel):
    r"""Train S students on the same batches; each becomes what it would alone.

    Students may differ in architecture, loss, ``alpha``, optimizer, schedule and the seed of
    their initialisation. Equal teachers are one object and see each batch once. One backward pass
    of :math:`\sum_s L_s` gives each student the gradient of its own loss, and each has its own
    optimizer (:class:`StudentGroupOptimConstructor`) and, in the same run, its own loss values,
    under ``NAME/KEY``.

    On a CPU in float32 a student without dropout ends with the bits that it has after a run of
    its own with the same data and seed: it is initialised from a generator of its own.

    Args:
        students: Configs of :class:`LogitDistiller` or of mmpretrain classifiers, by names
            without dots.
        seeds: Of the initialisation: one for all, or one for each name.
        data_preprocessor: For students whose config has none. The first student's makes the
            batches of all.

    Raises:
        ValueError: If there is no student, a name or seed is wrong, students have different
            preprocessors or mix batches, or one distils features, whose teacher must run for it
            alone.

    Example:
        >>> from mmengine.registry import MODELS
        >>> net = dict(type='mmpretrain.ImageClassifier',
        ...            backbone=dict(type='mmkd_logit.WideResNetCIFAR', depth=10, widen_factor=1),
        ...            neck=dict(type='mmpretrain.GlobalAveragePooling'),
        ...            head=dict(type='mmpretrain.LinearClsHead', num_classes=5, in_channels=64))
        >>> mse = dict(type='mmkd_logit.LogitDistiller', student=net,
        ...            teacher=dict(config=net, checkpoint=None),
        ...            loss_kd=dict(type='mmkd_logit.LogitMSELoss'))
        >>> kl = {**mse, 'loss_kd': dict(type='mmkd_logit.ScaledKLDivLoss', tau=3)}
        >>> group = MODELS.build(dict(
        ...     type='mmkd_logit.StudentGroup', students=dict(alone=net, mse=mse, kl=kl), seeds=0))
        >>> group.students['mse'].teachers[0] is group.students['kl'].teachers[0]
        True
    """

    def __init__(
        self,
        students: Mapping[str, dict],
        seeds: int | Mapping[str, int],
        data_preprocessor: dict | nn.Module | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(students, Mapping) or not students:
            raise ValueError(f"students must be a dict of configs by name, got {students!r}")
        self._streams = _read_seeds(seeds, students)
        built: dict[str, nn.Module] = {}
        shared: dict[str, list[FrozenTeacher]] = {}
        for name, cfg in students.items():
            with self._streams[name].draw():
                built[name] = _build_member(name, cfg, data_preprocessor, shared)
        _check_preprocessors(built)
        self.students = nn.ModuleDict(built)
        self.data_preprocessor = next(iter(built.values())).data_preprocessor

    def init_weights(self) -> None:
        """Initialise every student from its own generator, and build the teachers.

        Raises:
            FileNotFoundError: If a teacher's checkpoint does not exist.
            ValueError: If it does not fit its network, or teacher and student differ in classes.
        """
        for name, student in self.students.items():
            with self._streams[name].draw():
                student.init_weights()

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "loss") -> Any:
        """Do with every student what it does with a batch.

        Args:
            inputs: Images, (N, C, H, W).
            data_samples: Their N annotations.
            mode: ``'loss'`` or ``'tensor'``. Predictions are each student's own business: they
                are written into the annotations.

        Returns:
            What each student gives, by its name.

        Raises:
            ValueError: If ``mode`` is another.
        """
        if mode == "tensor":
            return {name: student(inputs, mode=mode) for name, student in self.students.items()}
        if mode != "loss":
            raise ValueError(
                f"a StudentGroup has mode 'loss' or 'tensor', got {mode!r}; predict with one of "
                f"its students: {', '.join(self.students)}"
            )
        seen: dict[int, Tensor] = {}
        losses = {}
        for name, student in self.students.items():
            if not isinstance(student, LogitDistiller) or student.alpha == 0:
                samples = samples_for_loss(getattr(student, "student", student), data_samples)
                losses[name] = student.loss(inputs, samples)
                continue
            for teacher in student.teachers:
                if id(teacher) not in seen:
                    seen[id(teacher)] = teacher(inputs, getattr(data_samples, "views", None))
            logits = join_logits([seen[id(t)] for t in student.teachers], student.ensemble)
            losses[name] = student.loss(inputs, data_samples, logits)
        return losses

    def train_step(self, data: Any, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """Make a step of every student.

        Args:
            data: A batch of the data loader.
            optim_wrapper: One optimizer for each student, by its name.

        Returns:
            What is logged, by ``NAME/KEY``.
        """
        with self.step_context(optim_wrapper):
            data = self.data_preprocessor(data, True)
            losses = self._run_forward(data, mode="loss")
        return self.update(losses, optim_wrapper)

    @contextmanager
    def step_context(self, optim_wrapper: OptimWrapperDict) -> Iterator[None]:
        """Enter the precision that the optimizers, which agree in it, ask for.

        Args:
            optim_wrapper: As of :meth:`train_step`.
        """
        first = next(iter(optim_wrapper.values()))
        with first.optim_context(self):
            yield

    def update(
        self, losses: Mapping[str, dict[str, Tensor]], optim_wrapper: OptimWrapperDict
    ) -> dict[str, Tensor]:
        """Let every student learn from its own loss.

        Args:
            losses: Of :meth:`forward`.
            optim_wrapper: As of :meth:`train_step`.

        Returns:
            As :meth:`train_step`.
        """
        totals, logged = [], {}
        for name, student in self.students.items():
            loss, values = student.parse_losses(losses[name])
            totals.append(loss)
            logged.update({f"{name}/{key}": value for key, value in values.items()})
        # Each loss enters with weight 1 and no student's graph meets another's, so this is every
        # one's own gradient, also if another's loss is NaN; one pass lets DDP overlap it all.
        torch.stack(totals).sum().backward()
        for wrapper in optim_wrapper.values():
            wrapper.step()
            wrapper.zero_grad()
        return logged


class _Stream:
    """The random numbers that build and initialise one student, as in a run of its own."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._state: Tensor | None = None

    @contextmanager
    def draw(self) -> Iterator[None]:
        with preserve_random_state():
            if self._state is None:
                torch.default_generator.manual_seed(self._seed)
            else:
                torch.default_generator.set_state(self._state)
                if torch.cuda.is_initialized():  # networks are built on the CPU
                    torch.cuda.manual_seed_all(self._seed)
            yield
            self._state = torch.default_generator.get_state()


def _read_seeds(seeds: Any, students: Mapping[str, dict]) -> dict[str, _Stream]:
    for name in students:
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"a student's name is text without dots, got {name!r}")
    each = seeds if isinstance(seeds, Mapping) else dict.fromkeys(students, seeds)
    if set(each) != set(students):
        raise ValueError(f"seeds are of {sorted(each)}, the students are {sorted(students)}")
    for seed in each.values():
        if type(seed) is not int or not 0 <= seed < 2**32:
            raise ValueError(f"a seed is an integer from 0 to 2**32 - 1, got {seed!r}")
    return {name: _Stream(seed) for name, seed in each.items()}


def _check_preprocessors(students: Mapping[str, nn.Module]) -> None:
    """Make sure that the first one's batches are what all expect."""
    (name, first), *others = students.items()
    for other, student in others:
        mine, theirs = first.data_preprocessor, student.data_preprocessor
        mixes = [getattr(each, "batch_augments", None) is not None for each in (mine, theirs)]
        if any(mixes) or describe_preprocessor(mine) != describe_preprocessor(theirs):
            raise ValueError(
                f"the students {name} and {other} share batches, but not their data_preprocessor, "
                "or it mixes them (batch_augments); give all the same one"
            )


def _build_member(
    name: str, cfg: dict, data_preprocessor: Any, shared: dict[str, list[FrozenTeacher]]
) -> nn.Module:
    """Build one student; its teachers are those that were built from the same words before."""
    if not isinstance(cfg, Mapping) or "type" not in cfg:
        raise ValueError(f"the student {name} must be the config of a model, got {cfg!r}")
    cfg = copy.deepcopy(dict(cfg))
    if type_name(cfg) != "LogitDistiller":
        return build_student(cfg, data_preprocessor)
    if cfg.get("feature_kd"):
        raise ValueError(f"the student {name} distils features; train it in a run of its own")
    spec = json.dumps(cfg.get("teacher"), sort_keys=True, default=repr)
    cfg["teacher"] = shared.get(spec, cfg.get("teacher"))
    if data_preprocessor is not None:
        cfg.setdefault("data_preprocessor", copy.deepcopy(data_preprocessor))
    student = MODELS.build(cfg)
    shared.setdefault(spec, student.teachers)
    return student


# An optimizer for each student of a group.


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


# A group of students over several processes.


@MODEL_WRAPPERS.register_module()
class StudentGroupDDP(MMDistributedDataParallel):
    """One ``DistributedDataParallel`` around all students of a :class:`StudentGroup`.

    MMEngine's own makes one step of one optimizer. Arguments are its.
    """

    def train_step(self, data: Any, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """Make a step of every student.

        Args:
            data: A batch of the data loader.
            optim_wrapper: One optimizer for each student, by its name.
        """
        group = self.module
        with group.step_context(optim_wrapper):
            data = group.data_preprocessor(data, training=True)
            losses = self._run_forward(data, mode="loss")
        return group.update(losses, optim_wrapper)
