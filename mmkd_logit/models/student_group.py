"""Student groups: several students on one pass of their teacher."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import BaseModel, MMDistributedDataParallel, is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmengine.runner import Runner, ValLoop
from torch import Tensor, nn

from mmkd_logit.registry import LOOPS, MODEL_WRAPPERS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from mmkd_logit.utils.arguments import type_name

from .build import build_student, preserve_random_state
from .distiller import LogitDistiller, join_logits, read_teachers, samples_for_loss
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
        for name in students:
            if not isinstance(name, str) or not name or "." in name:
                raise ValueError(f"a student's name is text without dots, got {name!r}")
        self._seeds = seeds if isinstance(seeds, Mapping) else dict.fromkeys(students, seeds)
        if set(self._seeds) != set(students):
            given = sorted(self._seeds)
            raise ValueError(f"seeds are of {given}, the students are {sorted(students)}")
        for seed in self._seeds.values():
            if type(seed) is not int or not 0 <= seed < 2**32:
                raise ValueError(f"a seed is an integer from 0 to 2**32 - 1, got {seed!r}")
        self._states: dict[str, Tensor] = {}  # of each student's generator
        self.students = nn.ModuleDict()
        teachers: dict[str, FrozenTeacher] = {}
        for name, cfg in students.items():
            with self._generator_of(name):
                self.students[name] = _build_student(name, cfg, data_preprocessor, teachers)
        first, *others = self.students
        for other in others:
            self._check_preprocessors(first, other)
        self.data_preprocessor = self.students[first].data_preprocessor

    @contextmanager
    def _generator_of(self, name: str) -> Iterator[None]:
        """Draw the numbers that a run of the student alone would draw next."""
        with preserve_random_state():
            torch.default_generator.manual_seed(self._seeds[name])
            if torch.cuda.is_initialized():
                torch.cuda.manual_seed_all(self._seeds[name])
            if name in self._states:
                torch.default_generator.set_state(self._states[name])
            yield
            self._states[name] = torch.default_generator.get_state()

    def _check_preprocessors(self, first: str, second: str) -> None:
        mine, theirs = (self.students[name].data_preprocessor for name in (first, second))
        mix = any(getattr(each, "batch_augments", None) is not None for each in (mine, theirs))
        if mix or describe_preprocessor(mine) != describe_preprocessor(theirs):
            raise ValueError(
                f"the students {first} and {second} share batches, but not their "
                "data_preprocessor, or it mixes them (batch_augments); give all the same one"
            )

    def init_weights(self) -> None:
        """Initialise every student from its own generator, and build the teachers."""
        for name, student in self.students.items():
            with self._generator_of(name):
                student.init_weights()

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "loss") -> Any:
        """Return the losses (mode ``'loss'``) or the logits (``'tensor'``) of each student.

        Predictions are written into the samples, so each student makes its own.
        """
        if mode == "tensor":
            return {name: student(inputs, mode=mode) for name, student in self.students.items()}
        if mode != "loss":
            raise ValueError(
                f"a StudentGroup has mode 'loss' or 'tensor', got {mode!r}; predict with one of "
                f"its students: {', '.join(self.students)}"
            )
        computed: dict[FrozenTeacher, Tensor] = {}
        views = getattr(data_samples, "views", None)
        losses = {}
        for name, student in self.students.items():
            if not isinstance(student, LogitDistiller) or not student.needs_teacher:
                samples = samples_for_loss(getattr(student, "student", student), data_samples)
                losses[name] = student.loss(inputs, samples)
                continue
            for teacher in student.teachers:
                if teacher not in computed:
                    computed[teacher] = teacher(inputs, views)
            logits = join_logits([computed[each] for each in student.teachers], student.ensemble)
            losses[name] = student.loss(inputs, data_samples, logits)
        return losses

    def train_step(self, data: Any, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """Make a step of every student; return its logged values under ``NAME/KEY``."""
        return group_step(self, self, data, optim_wrapper)


def group_step(
    model: Any, group: StudentGroup, data: Any, optim_wrapper: OptimWrapperDict
) -> dict[str, Tensor]:
    """Make a step of a group, which ``model`` is or wraps."""
    precision = next(iter(optim_wrapper.values()))  # which all optimizers share
    with precision.optim_context(group):
        data = group.data_preprocessor(data, True)
        losses = model._run_forward(data, mode="loss")
    totals, logged = [], {}
    for name, student in group.students.items():
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


@MODEL_WRAPPERS.register_module()
class StudentGroupDDP(MMDistributedDataParallel):
    """One ``DistributedDataParallel`` around all students of a :class:`StudentGroup`.

    MMEngine's own makes one step of one optimizer. Arguments are its.
    """

    def train_step(self, data: Any, optim_wrapper: OptimWrapperDict) -> dict[str, Tensor]:
        """Make a step of every student."""
        return group_step(self, self.module, data, optim_wrapper)


def _build_student(
    name: str, cfg: Any, data_preprocessor: Any, teachers: dict[str, FrozenTeacher]
) -> nn.Module:
    """Build one student; teachers of the same settings are one."""
    if not isinstance(cfg, Mapping) or "type" not in cfg:
        raise ValueError(f"the student {name} must be the config of a model, got {cfg!r}")
    if type_name(cfg) != "LogitDistiller":
        return build_student(copy.deepcopy(dict(cfg)), data_preprocessor)
    if cfg.get("feature_kd"):
        raise ValueError(f"the student {name} distils features; train it in a run of its own")
    given = read_teachers(cfg.get("teacher"))  # modules themselves, which a copy would double
    cfg = copy.deepcopy({key: value for key, value in cfg.items() if key != "teacher"})
    cfg["teacher"] = [teachers.setdefault(_key_of(each), each) for each in given]
    if data_preprocessor is not None:
        cfg.setdefault("data_preprocessor", copy.deepcopy(data_preprocessor))
    return MODELS.build(cfg)


def _key_of(teacher: FrozenTeacher) -> str:
    """Identify a teacher; modules of one architecture look alike."""
    config = teacher.settings.config
    return repr(teacher.settings) + f" {id(config)}" * isinstance(config, nn.Module)


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
        """Build the optimizers for a group, wrapped or not."""
        group: Any = model.module if is_model_wrapper(model) else model
        if set(group.students) != set(self.students):
            raise ValueError(
                f"there are optimizers for {sorted(self.students)} and students "
                f"{sorted(group.students)}"
            )
        # What the one forward pass takes from the optimizers.
        precisions = {(str(c.get("type")), str(c.get("dtype"))) for c in self.students.values()}
        if len(precisions) > 1:
            raise ValueError(f"students of a group share one precision, got {sorted(precisions)}")
        wrappers = {}
        for name, cfg in self.students.items():
            wrapper = build_optim_wrapper(group.students[name], copy.deepcopy(cfg))
            if cfg.get("accumulative_counts", 1) != 1 or isinstance(wrapper, AmpOptimWrapper):
                raise ValueError(
                    f"the optimizer of {name} accumulates gradients or scales its loss; train it "
                    "in a run of its own"
                )
            if hasattr(wrapper, "grad_name"):  # under which the norm is logged
                wrapper.grad_name = f"{name}/{wrapper.grad_name}"
            wrappers[name] = wrapper
        return OptimWrapperDict(**wrappers)


class _Evaluators(dict):
    """The evaluators of the students, by name, as one."""

    def evaluate(self, size: int) -> dict[str, Any]:
        return {
            f"{name}/{key}": value
            for name, evaluator in self.items()
            for key, value in evaluator.evaluate(size).items()
        }


@LOOPS.register_module()
class StudentGroupValLoop(ValLoop):
    """Show every batch to every student; metrics are named ``NAME/METRIC``.

    Its arguments are those of MMEngine's loop; each student has a copy of the evaluator.
    """

    def __init__(self, runner: Runner, dataloader: Any, evaluator: Any, fp16: bool = False) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self.students = model.students
        given: Any = self.evaluator
        self.evaluator: Any = _Evaluators({n: copy.deepcopy(given) for n in self.students})

    @torch.no_grad()
    def run_iter(self, idx: int, data_batch: Any) -> None:
        """Show one batch to every student."""
        self.runner.call_hook("before_val_iter", batch_idx=idx, data_batch=data_batch)
        outputs: Any = None
        for name, student in self.students.items():
            with torch.autocast(next(student.parameters()).device.type, enabled=self.fp16):
                outputs = student.val_step(data_batch)
            self.evaluator[name].process(data_samples=outputs, data_batch=data_batch)
        self.runner.call_hook(
            "after_val_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs
        )
