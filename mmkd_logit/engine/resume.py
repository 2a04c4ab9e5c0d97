"""What a run resumes from: its last checkpoint, and all state that decides what comes next."""

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import (
    all_gather_object,
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import CheckpointHook, EarlyStoppingHook, Hook, SyncBuffersHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmkd_logit.checkpoint import UnsafeCheckpointError, load_from_file, read_lazily
from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.arguments import type_name
from mmkd_logit.utils.files import read_run, why_damaged

from .config import seed_of
from .fingerprint import dataset_hash, list_changes
from .save import POINTER


class Place(NamedTuple):
    """Where a run goes on from a checkpoint that is written now.

    Attributes:
        epoch: Of the next iteration.
        iter: Iterations done.
        batch: Batches served of that epoch, or of an endless stream.
        validated: Whether the validation that is due before the next iteration, if any, is done.
    """

    epoch: int = 0
    iter: int = 0
    batch: int = 0
    validated: bool = True


def read_place(value: object) -> Place:
    """Read the place that a checkpoint holds."""
    numbers = Place._fields[:3]
    if isinstance(value, dict) and set(value) == set(Place._fields):
        right = all(type(value[name]) is int and value[name] >= 0 for name in numbers)
        if right and isinstance(value["validated"], bool):
            return Place(**value)
    raise ValueError(f"{value!r} is no place in a run, which has {', '.join(Place._fields)}")


# The random generators of a process, in and out of a checkpoint.


def capture_random_states() -> dict[str, Any]:
    """Copy the states of Python's, NumPy's and torch's generators (CPU and this GPU)."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    states = dict(
        python=torch.tensor(words, dtype=torch.int64),
        python_more=[version, gauss],
        numpy=torch.from_numpy(np.asarray(keys, dtype=np.int64)),
        numpy_more=[int(position), int(has_gauss), float(cached)],
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: Any) -> None:
    """Put the generators into the states of :func:`capture_random_states`."""
    try:
        version, gauss = states["python_more"]
        random.setstate((version, tuple(states["python"].tolist()), gauss))
        keys = states["numpy"].cpu().numpy().astype(np.uint32)
        position, has_gauss, cached = states["numpy_more"]
        np.random.set_state(("MT19937", keys, int(position), int(has_gauss), float(cached)))
        torch.set_rng_state(states["torch"].cpu())
        if "cuda" in states and torch.cuda.is_available():
            torch.cuda.set_rng_state(states["cuda"].cpu())
    except Exception as error:  # torch, NumPy and Python each complain in their own way
        raise ValueError(f"the checkpoint's random states are damaged ({error})") from None


def seed_random_states(seed: int, iteration: int, rank: int) -> None:
    """Put the generators into states that follow from three numbers."""
    words = np.random.SeedSequence([seed, iteration, rank]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


# What one process of a run has and the others have not.


def gather_processes(runner: Runner) -> list[dict[str, Any]]:
    """Collect the states of all processes, of which each calls this at the same time."""
    states = all_gather_object(capture_process(runner))
    first = states[0]["buffers"]
    for state in states[1:]:
        own = state["buffers"]
        state["buffers"] = {n: v for n, v in own.items() if not torch.equal(v, first[n])}
    states[0]["buffers"] = {}
    return states


def capture_process(runner: Runner) -> dict[str, Any]:
    """Copy the random states of this process, its buffers and gradients that still grow.

    BatchNorm's statistics are each process's own until an epoch ends. Gradients are there while
    the optimizer accumulates them, before DDP has averaged them.
    """
    gradients = {name: p.grad for name, p in _model(runner).named_parameters()}
    alone = get_world_size() == 1
    return dict(
        random=capture_random_states(),
        buffers={} if alone else {n: _copy(b) for n, b in _buffers(runner)},
        gradients={name: _copy(grad) for name, grad in gradients.items() if grad is not None},
    )


def restore_process(runner: Runner, states: Sequence[dict], rank: int) -> None:
    """Give a process its state, when the model and the optimizer are loaded."""
    same_number = len(states) == get_world_size()
    buffers = dict(_buffers(runner))
    if same_number:
        for name, value in states[rank]["buffers"].items():
            buffers[name].data.copy_(value)
    else:
        _average_buffers(buffers, states)
    gradients = states[rank]["gradients"] if same_number else _average_gradients(states)
    parameters = dict(_model(runner).named_parameters())
    for name, value in gradients.items():
        parameters[name].grad = torch.empty_like(parameters[name]).copy_(value)
    if rank < len(states):
        restore_random_states(states[rank]["random"])
    else:
        seed_random_states(runner.seed, runner.iter, rank)


def _average_buffers(buffers: Mapping[str, Tensor], states: Sequence[dict]) -> None:
    """Give all the mean, as MMEngine does at the end of an epoch."""
    for name in {name for state in states for name in state["buffers"]}:
        buffer = buffers[name]
        if buffer.is_floating_point():
            values = [state["buffers"].get(name, buffer).to(buffer) for state in states]
            buffer.data.copy_(torch.stack(values).mean(0))


def _average_gradients(states: Sequence[dict]) -> dict[str, Tensor]:
    """Give the mean, which DDP makes of the sums of several processes."""
    names = states[0]["gradients"]
    return {name: torch.stack([s["gradients"][name] for s in states]).mean(0) for name in names}


def _model(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _buffers(runner: Runner) -> Iterator[tuple[str, Tensor]]:
    """Give the buffers of the model, and of the copies that hooks such as EMAHook keep of it."""
    yield from ((f"model.{name}", buffer) for name, buffer in _model(runner).named_buffers())
    averages = [getattr(hook, "ema_model", None) for hook in runner.hooks]
    for number, average in enumerate(each for each in averages if isinstance(each, nn.Module)):
        for name, buffer in average.named_buffers():
            yield f"average{number}.{name}", buffer


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True)


# What MMEngine's hooks remember and do not save.


# By class, so that settings of a hook stay the config's.
_REMEMBERED: dict[type, tuple[str, ...]] = {
    EarlyStoppingHook: ("wait_count", "best_score"),
    SyncBuffersHook: ("called_in_train",),
}


def capture_hooks(runner: Runner) -> list[dict[str, Any]]:
    """Copy what hooks of known kinds remember, in the order of the hooks."""
    return [
        dict(kind=kind.__name__, values=[_plain(getattr(hook, name)) for name in names])
        for hook in runner.hooks
        for kind, names in _REMEMBERED.items()
        if isinstance(hook, kind)
    ]


def restore_hooks(runner: Runner, states: list[dict[str, Any]]) -> None:
    """Give hooks back what they remembered."""
    for kind, names in _REMEMBERED.items():
        hooks = [hook for hook in runner.hooks if isinstance(hook, kind)]
        known = [state["values"] for state in states if state["kind"] == kind.__name__]
        if len(hooks) == len(known):
            for hook, values in zip(hooks, known, strict=True):
                vars(hook).update(zip(names, values, strict=True))
    for hook in runner.hooks:
        if isinstance(hook, EarlyStoppingHook) and hook.wait_count >= hook.patience:
            runner.train_loop.stop_training = True
        last = runner.message_hub.runtime_info.get("last_ckpt")
        if isinstance(hook, CheckpointHook) and hook.last_ckpt is None and last:
            # Without it a better validation would not have the checkpoint before it rewritten.
            hook.last_ckpt = str(Path(hook.out_dir, Path(last).name))


def count_steps(runner: Runner) -> None:
    """Let schedulers know that the optimizer has stepped, or they warn where an epoch ends now."""
    schedulers = runner.param_schedulers or []
    lists = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
    for scheduler in (each for some in lists for each in some):
        if runner.iter and getattr(scheduler.optimizer, "_global_step", 0) < 0:
            scheduler.optimizer._global_step = 0


def tell_early_stopping(runner: Runner, metrics: dict[str, float]) -> None:
    """Let the hooks that may stop a run hear of a validation that they missed."""
    for hook in runner.hooks:
        if isinstance(hook, EarlyStoppingHook):
            hook.after_val_epoch(runner, metrics=metrics)


def _plain(value: Any) -> bool | int | float:
    return value if isinstance(value, (bool, int)) else float(value)


# What a run needs to go on exactly.


STATE = "resume_state"


@HOOKS.register_module()
class ResumeStateHook(Hook):
    """Put into checkpoints what a run needs to go on as if it had never stopped.

    Beside what MMEngine saves these are the random states of every process, the buffers in which
    processes differ, gradients that are being accumulated, the place in the epoch, whether the
    validation that follows is done, and what MMEngine's hooks for early stopping and for
    synchronising buffers remember. On a CPU, and on a GPU with deterministic kernels, weights,
    metrics and log values of a resumed run are then those of an uninterrupted one, bit for bit.

    It works with :class:`ResumableEpochBasedTrainLoop` or :class:`ResumableIterBasedTrainLoop`,
    which call ``restore_state`` before the first batch, and does nothing with other loops. A
    checkpoint may be written after any iteration, epoch or validation, by a hook with priority
    ``VERY_LOW`` or lower. In a run of several processes each must call
    ``runner.save_checkpoint``, as MMEngine's hooks do, of a Runner that then calls
    ``gather_state``; MMEngine's own does not, and keeps the state of the first process alone.

    With another number of processes, the first ones take the states that there are and the
    others are seeded from seed, iteration and rank. What data loader's workers draw, and what
    other hooks remember, is not saved: use :class:`SeededSampler`.

    ``tools/train.py`` adds hook, loop and Runner by itself.

    Raises:
        ValueError: When a run is resumed from a checkpoint whose state is damaged.
    """

    changes_training = False

    # Before all that look at a validation, and write.
    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._gathered: list[dict] | None = None
        self._loaded: dict[str, Any] | None = None
        self._has_validated = False
        self._opens_loader = False  # for a validation whose workers the run had already
        self._random: dict | None = None
        self._metrics: dict[str, float] | None = None
        self._remembered: list[dict] = []
        self._counted: dict[str, int] = {}

    def gather_state(self, runner: Runner) -> None:
        """Collect the states of the processes; every one calls this before one of them saves."""
        self._gathered = gather_processes(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the state to a checkpoint that can be resumed."""
        gathered, self._gathered = self._gathered, None
        place = getattr(runner.train_loop, "place", None)
        if "optimizer" not in checkpoint or place is None:
            return
        hooks = capture_hooks(runner)
        unheard = self._metrics if hooks == self._remembered else None
        checkpoint[STATE] = dict(
            place=place._asdict(),
            finished=place.iter >= runner.max_iters,
            images=_images_of_a_step(runner),
            processes=gathered or [capture_process(runner)],
            number=get_world_size(),
            hooks=hooks,
            has_validated=self._has_validated,
            unheard=unheard,
        )
        # Whoever saves names the place by what it knows; the loop knows it better.
        checkpoint["meta"].update(epoch=place.epoch, iter=place.iter)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Find where the run that is resumed was, and tell the loop."""
        loop: Any = runner.train_loop if runner._resume else None
        if not hasattr(loop, "go_on_from"):
            return
        info = (checkpoint.get("message_hub") or {}).get("runtime_info") or {}
        self._counted = {key: info[key] for key in ("iter", "epoch") if type(info.get(key)) is int}
        state = checkpoint.get(STATE)
        if state is None:
            meta = checkpoint.get("meta") or {}
            loop.go_on_from(_place_without_state(runner, meta))
            return
        self._loaded = _check(state)
        place = read_place(state["place"])
        before, now = state["images"], _images_of_a_step(runner)
        if before and now and before != now:
            place = place._replace(batch=place.batch * before // now)
        loop.go_on_from(place)
        self._has_validated = self._opens_loader = state["has_validated"]

    def restore_state(self, runner: Runner) -> None:
        """Put everything back; the loop calls this once no more is drawn before the next batch."""
        state, self._loaded = self._loaded, None
        count_steps(runner)
        # Hooks have counted on when training began again.
        runner.message_hub.update_info_dict(self._counted)
        where = f"epoch {runner.epoch + 1}, after {runner.iter} iterations"
        if state is None:
            runner.logger.warning(
                f"Going on in {where}, not exactly: the checkpoint has no random states, as other "
                "versions and programs wrote it; what is drawn at random differs from an "
                "uninterrupted run."
            )
            return
        try:
            restore_process(runner, state["processes"], get_rank())
            restore_hooks(runner, state["hooks"])
        except (KeyError, IndexError, TypeError, RuntimeError, AttributeError) as error:
            raise ValueError(
                f"the state in {runner._load_from} is damaged or of another model ({error!r}); "
                "resume an earlier checkpoint"
            ) from None
        if state["unheard"] is not None:
            tell_early_stopping(runner, state["unheard"])
        runner.logger.info(f"Going on in {where}{_in_words(state)}.")

    def before_val_epoch(self, runner: Runner) -> None:
        """Note the random states, if this validation starts workers that the run had already."""
        self._has_validated = True
        if self._opens_loader and runner.val_dataloader.persistent_workers:
            self._random = capture_random_states()
        self._opens_loader = False

    def before_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Put back what starting workers drew."""
        if self._random is not None:
            restore_random_states(self._random)
            self._random = None

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Note that the validation is done, for checkpoints that hooks write of it."""
        self._random = None
        loop = runner._train_loop  # the property would build one to validate alone
        if hasattr(loop, "place"):
            loop.place = loop.place._replace(validated=True)
            numbers = (int, float)
            self._metrics = {k: v for k, v in (metrics or {}).items() if isinstance(v, numbers)}
            self._remembered = capture_hooks(runner)

    def after_val(self, runner: Runner) -> None:
        """Note that all hooks have heard of the metrics."""
        self._metrics = None


def _images_of_a_step(runner: Runner) -> int | None:
    """Return how many images all processes together make an iteration of."""
    loader = runner.train_dataloader
    size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
    return size and size * get_world_size()


def _place_without_state(runner: Runner, meta: dict) -> Place:
    """Return where a checkpoint without our state was written, as far as its numbers say."""
    epoch, done = meta.get("epoch", 0), meta.get("iter", 0)
    before = getattr(runner.train_loop, "batches_before", None)
    return Place(epoch, done, done if before is None else max(0, done - before(epoch)))


def _check(state: Any) -> dict[str, Any]:
    kinds = dict(processes=list, hooks=list, number=int, has_validated=bool, place=dict)
    known = isinstance(state, dict) and {"images", "unheard", *kinds} <= set(state)
    if not known or not all(isinstance(state[name], kind) for name, kind in kinds.items()):
        raise ValueError(
            "the checkpoint's resume_state is damaged or of a later version; resume an earlier "
            "checkpoint"
        )
    return state


def _in_words(state: dict[str, Any]) -> str:
    """Say what was not restored exactly."""
    before, saved, now = state["number"], len(state["processes"]), get_world_size()
    if saved < before:
        text = f"; of {before} processes the state of the first is there alone"
    elif now != before:
        text = f" with {now} processes instead of {before}; sums may differ in the last bits"
    else:
        return ""
    fresh = range(saved, now)
    seeded = ", ".join(map(str, fresh))
    return text + (f"; rank {seeded} is seeded from seed, iteration and rank" if fresh else "")


# The checkpoint that a run goes on from.


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """Find the checkpoint that a run would go on from; its folder may have been moved since."""
    return find_checkpoint(work_dir)[0]


def find_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """Find the last checkpoint that is whole, and say what is wrong with later ones.

    That is the one that ``last_checkpoint`` names, or else those before it in ``run.json``. A
    folder without the first holds no checkpoint of its run, whatever lies there.
    """
    problems: list[str] = []
    for name in _names(Path(work_dir)):
        found = _locate(Path(work_dir), name)
        why = "does not exist" if found is None else _why_not(found)
        if why is None:
            return found, problems
        problems.append(f"{found or name} {why}")
    return None, problems


def _names(folder: Path) -> Iterator[str]:
    pointer = folder / POINTER
    if not pointer.is_file():
        return
    named = pointer.read_text(encoding="utf-8", errors="replace").strip()
    if named:
        yield named
    known = read_run(folder)
    before = known["checkpoints"] if known is not None else _numbered_before(folder, named)
    if named in before:  # one that is not named yet may have been meant for other settings
        before = before[: before.index(named)]
    yield from reversed([name for name in before if name != named])


def _numbered_before(folder: Path, named: str) -> list[str]:
    """List the checkpoints of a folder of MMEngine's own, with lower numbers than the last one."""
    kind, _, number = Path(named).stem.rpartition("_")
    if not number.isdigit():
        return []
    found = {}
    for path in folder.glob(f"{kind}_*.pth"):
        own = path.stem.rpartition("_")[2]
        if own.isdigit() and int(own) < int(number):
            found[int(own)] = str(path)
    return [found[key] for key in sorted(found)]


def _locate(folder: Path, name: str) -> Path | None:
    named = Path(name)
    return next((path for path in (folder / named.name, named) if path.is_file()), None)


def _why_not(path: Path) -> str | None:
    why = why_damaged(path, only_zip=True)
    if why is not None:
        return f"is damaged: {why}"
    try:
        load_from_file(str(path), "meta")  # without reading the tensors
    except UnsafeCheckpointError:
        return None  # resuming says so
    except ValueError:
        return "is damaged: it cannot be read as a checkpoint"
    return None


def missing_text(work_dir: str | Path, problems: list[str]) -> str:
    """Say that no checkpoint of a folder is whole."""
    return (
        f"warning: no checkpoint of {work_dir} is whole ({'; '.join(problems)}); starting from the "
        "beginning"
    )


# Runs do not go on from checkpoints of other runs unnoticed.


MADE_OF = "made_of"
_RESUMABLE = {"optimizer", "meta", "message_hub"}  # what only a checkpoint to resume has
_SHOWN = 8  # differences in one message


def allow_other_labels(cfg: Config) -> None:
    """Let :class:`~mmkd_logit.hooks.LabelNoiseHook` accept labels other than the checkpoint's."""
    for hook in cfg.custom_hooks:
        if type_name(hook) == "LabelNoiseHook":
            hook["resume_changed"] = True


class FingerprintHook(Hook):
    """Say in checkpoints what their run is made of, and refuse to resume another run's.

    Looked at are the config, the seed, the content of teachers' and of label files, and the
    training data's pictures and labels.
    """

    priority = "ABOVE_NORMAL"  # LabelNoiseHook knows more of labels, and comes first

    def __init__(self, computed: dict[str, Any], resume_changed: bool = False) -> None:
        self.computed = computed
        self.resume_changed = resume_changed
        self._looked = False
        self._changes: list[str] = []
        self._data: list[str | None] = []

    def look_ahead(self, cfg: Config) -> None:
        """Look into the checkpoint before anything is built or written.

        The run takes the checkpoint's seed, as MMEngine does, but before the data loader is made.
        """
        path = cfg.get("load_from") or last_checkpoint(cfg.work_dir)
        if not cfg.get("resume") or path is None or "://" in str(path):
            return
        checkpoint = read_lazily(str(path))
        self._look(checkpoint, str(path))
        seed = checkpoint["meta"].get("seed")
        if type(seed) is int and seed != seed_of(cfg):
            cfg.randomness = dict(cfg.get("randomness") or {}, seed=seed)

    def _look(self, checkpoint: Any, path: str) -> None:
        if not isinstance(checkpoint, dict) or not set(checkpoint) >= _RESUMABLE:
            raise ValueError(
                f"{path} holds weights alone and cannot be resumed; take an epoch_N.pth, or set "
                "load_from to begin a new training with these weights"
            )
        self._looked = True
        if MADE_OF in checkpoint:
            made_of = checkpoint[MADE_OF]
            if isinstance(made_of, dict) and "config" in made_of:
                changes = ["the version of mmkd_logit (0.1.0), whose settings cannot be compared"]
            else:
                content = made_of.get("computed") if isinstance(made_of, dict) else None
                changes = list_changes(content, self.computed)
            self._settle(changes, path)

    def _settle(self, changes: list[str], path: str) -> None:
        if changes and not self.resume_changed:
            more = [f"and {len(changes) - _SHOWN} more"] if len(changes) > _SHOWN else []
            raise ValueError(
                f"{path} is of a run that differs in {'; '.join([*changes[:_SHOWN], *more])}. "
                "Restore that, begin a new run in another --work-dir, or go on all the same with "
                "--resume-changed"
            )
        self._changes += changes

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the data, which have been read by now."""
        if not runner._resume:
            return
        path = str(runner._load_from)
        if not self._looked:
            self._look(checkpoint, path)
        if MADE_OF not in checkpoint:
            runner.logger.warning(
                f"{Path(path).name} does not say of what run it is; nothing is compared with it"
            )
            return
        self._read_data(runner)
        broadcast_object_list(self._data)  # the first process has read it for all
        before, now = checkpoint[MADE_OF].get("data"), self._data[0]
        if before is not None and before != now:
            self._settle([f"the training images or labels (hash {before} -> {now})"], path)
        if self._changes:
            runner.logger.warning(f"Going on all the same with {'; '.join(self._changes)}")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Say of what run it is."""
        if "optimizer" in checkpoint:
            self._read_data(runner)
            computed = getattr(runner, "computed", None) or self.computed
            checkpoint[MADE_OF] = dict(computed=computed, data=self._data[0])

    def _read_data(self, runner: Runner) -> None:
        if not self._data:
            main = is_main_process()
            self._data = [dataset_hash(runner.train_dataloader.dataset) if main else None]
