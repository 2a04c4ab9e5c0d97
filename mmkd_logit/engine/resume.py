"""Resuming a run exactly: its last checkpoint, and all state that decides what comes next."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import EarlyStoppingHook, Hook, SyncBuffersHook
from mmengine.runner import EpochBasedTrainLoop, Runner, set_random_seed
from torch import Tensor

from mmkd_logit.checkpoint import (
    UnsafeCheckpointError,
    load_exactly,
    load_from_file,
    read_lazily,
)
from mmkd_logit.hooks.networks import averaged_networks, schedulers, unwrapped
from mmkd_logit.registry import HOOKS
from mmkd_logit.utils.files import why_damaged

from .config import FINAL, seed_of
from .fingerprint import dataset_hash, list_changes, read_run, write_run
from .save import POINTER


class Progress(NamedTuple):
    """Where a run continues from a checkpoint that is written now."""

    epoch: int = 0  # of the next iteration
    iter: int = 0  # done
    batch: int = 0  # batches consumed of that epoch, or of an endless stream
    validated: bool = True  # whether no validation is due before the next iteration


def capture_random_states() -> dict[str, Any]:
    """Copy the states of Python's, NumPy's and torch's generators (CPU and this GPU).

    They are tensors and numbers, which a safe checkpoint may hold.
    """
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


def restore_random_states(states: dict[str, Any]) -> None:
    """Put the generators into the states of :func:`capture_random_states`."""
    version, gauss = states["python_more"]
    random.setstate((version, tuple(states["python"].tolist()), gauss))
    keys = states["numpy"].cpu().numpy().astype(np.uint32)
    position, has_gauss, cached = states["numpy_more"]
    np.random.set_state(("MT19937", keys, int(position), int(has_gauss), float(cached)))
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


def capture_process(runner: Runner) -> dict[str, Any]:
    """Copy the random states of this process, its buffers and its accumulated gradients.

    BatchNorm's statistics are each process's own until an epoch ends. Gradients are there while
    the optimizer accumulates them, before DDP has averaged them.
    """
    parameters = unwrapped(runner).named_parameters()
    buffers = _buffers(runner) if get_world_size() > 1 else ()
    return dict(
        random=capture_random_states(),
        buffers={name: _copy(buffer) for name, buffer in buffers},
        gradients={name: _copy(p.grad) for name, p in parameters if p.grad is not None},
    )


def restore_process(runner: Runner, states: Sequence[dict[str, Any]]) -> None:
    """Give a process its state, once the model and the optimizer are loaded.

    Another number of processes starts from the buffers of the first one, without accumulated
    gradients, and from new random states.
    """
    if len(states) != get_world_size():
        numbers = np.random.SeedSequence([runner.seed, runner.iter, get_rank()]).generate_state(1)
        set_random_seed(int(numbers[0]))
        return
    state = states[get_rank()]
    buffers = dict(_buffers(runner))
    for name, value in state["buffers"].items():
        buffers[name].data.copy_(value)
    parameters = dict(unwrapped(runner).named_parameters())
    for name, value in state["gradients"].items():
        parameters[name].grad = torch.empty_like(parameters[name]).copy_(value)
    restore_random_states(state["random"])


def _buffers(runner: Runner) -> Iterator[tuple[str, Tensor]]:
    """Give the buffers of the model, and of the copies that hooks such as EMAHook keep of it."""
    yield from ((f"model.{name}", buffer) for name, buffer in unwrapped(runner).named_buffers())
    for number, average in enumerate(averaged_networks(runner)):
        for name, buffer in average.named_buffers():
            yield f"average{number}.{name}", buffer


def _copy(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True)


# What MMEngine's hooks remember and do not save; their settings stay the config's.
_REMEMBERED: dict[type, tuple[str, ...]] = {
    EarlyStoppingHook: ("wait_count", "best_score"),
    SyncBuffersHook: ("called_in_train",),
}


def capture_hooks(runner: Runner) -> list[dict[str, Any]]:
    """Copy what hooks of known kinds remember, in the order of the hooks."""
    return [
        dict(kind=kind.__name__, values=[getattr(hook, name) for name in names])
        for kind, names in _REMEMBERED.items()
        for hook in runner.hooks
        if isinstance(hook, kind)
    ]


def restore_hooks(runner: Runner, states: list[dict[str, Any]]) -> None:
    """Give hooks back what they remembered, where a kind has as many hooks as before."""
    for kind, names in _REMEMBERED.items():
        hooks = [hook for hook in runner.hooks if isinstance(hook, kind)]
        known = [state["values"] for state in states if state["kind"] == kind.__name__]
        if len(hooks) == len(known):
            for hook, values in zip(hooks, known, strict=True):
                vars(hook).update(zip(names, values, strict=True))
    for hook in runner.hooks:
        if isinstance(hook, EarlyStoppingHook) and hook.wait_count >= hook.patience:
            runner.train_loop.stop_training = True


STATE = "resume_state"


@HOOKS.register_module()
class ResumeStateHook(Hook):
    """Save and restore what a run needs to continue as if it had never stopped.

    Beside what MMEngine saves these are the random states of every process, the buffers in which
    processes differ, gradients that are being accumulated, the place in the epoch, whether the
    validation that follows is done, and what MMEngine's hooks for early stopping and for
    synchronising buffers remember. On a CPU, and on a GPU with deterministic kernels, weights,
    metrics and log values of a resumed run are then those of an uninterrupted one, bit for bit.

    ``tools/train.py`` adds it, the loops that it works with (:class:`ResumableEpochBasedTrainLoop`,
    :class:`ResumableIterBasedTrainLoop`) and a Runner that calls ``gather_state`` in all processes
    before one saves. A checkpoint may be written after any iteration, epoch or validation, by a
    hook with priority ``VERY_LOW`` or lower.

    With another number of processes a run continues, but not exactly: random states are seeded
    from seed, iteration and rank. What workers of data loaders draw, and what other hooks
    remember, is not saved: use :class:`SeededSampler`.

    Raises:
        ValueError: When a run is resumed from a checkpoint whose state is damaged, or whose weights
            are not those of the model, all of them.
    """

    changes_training = False
    priority = "VERY_HIGH"  # before all that look at a validation, and write

    def __init__(self) -> None:
        self._gathered: list[dict[str, Any]] | None = None
        self._loaded: dict[str, Any] | None = None
        self._has_validated = False
        self._counted: dict[str, int] = {}

    def gather_state(self, runner: Runner) -> None:
        """Collect the states of the processes; every one calls this before one of them saves."""
        self._gathered = all_gather_object(capture_process(runner))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the state to a checkpoint that can be resumed."""
        gathered, self._gathered = self._gathered, None
        progress = getattr(runner.train_loop, "progress", None)
        if "optimizer" not in checkpoint or progress is None:
            return
        checkpoint[STATE] = dict(
            place=progress._asdict(),
            finished=progress.iter >= runner.max_iters,
            processes=gathered or [capture_process(runner)],
            number=get_world_size(),
            hooks=capture_hooks(runner),
            stopped=runner.train_loop.stop_training,
            has_validated=self._has_validated,
        )
        # The hook that saves may count differently; the loop knows.
        checkpoint["meta"].update(epoch=progress.epoch, iter=progress.iter)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check that all weights are there, and tell the loop where the run was."""
        if runner._resume:
            _check_weights(runner, checkpoint)
        loop: Any = runner.train_loop if runner._resume else None
        if not hasattr(loop, "resume_from"):
            return
        info = (checkpoint.get("message_hub") or {}).get("runtime_info") or {}
        self._counted = {key: info[key] for key in ("iter", "epoch") if type(info.get(key)) is int}
        state = self._loaded = checkpoint.get(STATE)
        try:
            if state is None:  # of another program
                meta = checkpoint.get("meta") or {}
                batch = done = meta.get("iter", 0)
                if isinstance(loop, EpochBasedTrainLoop):
                    batch %= len(loop.dataloader)
                place = dict(epoch=meta.get("epoch", 0), iter=done, batch=batch)
                state = dict(place=place, has_validated=False)
            progress = Progress(**state["place"])
            if not all(type(count) is int and count >= 0 for count in progress[:3]):
                raise ValueError(f"{progress} is no progress of a run")
            self._has_validated = state["has_validated"]
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(runner, error) from None
        loop.resume_from(progress)

    def restore_state(self, runner: Runner) -> None:
        """Put everything back; the loop calls this once no more is drawn before the next batch."""
        state, self._loaded = self._loaded, None
        for scheduler in schedulers(runner):  # which warn where an epoch ends before a step
            if runner.iter and getattr(scheduler.optimizer, "_global_step", 0) < 0:
                scheduler.optimizer._global_step = 0
        # Hooks have counted on when training began again.
        runner.message_hub.update_info_dict(self._counted)
        where = f"epoch {runner.epoch + 1}, after {runner.iter} iterations"
        if state is None:
            runner.logger.warning(
                f"Continuing in {where}, not exactly: the checkpoint has no random states, as "
                "other versions and programs wrote it; what is drawn at random differs from an "
                "uninterrupted run."
            )
            return
        if self._has_validated and runner.val_loop is not None:
            loader = runner.val_dataloader
            if loader.persistent_workers:
                iter(loader)  # the run had these workers already, and to start them draws a seed
        try:
            restore_process(runner, state["processes"])
            restore_hooks(runner, state["hooks"])
            if state.get("stopped"):
                runner.train_loop.stop_training = True
        except Exception as error:  # torch, NumPy and Python each complain in their own way
            raise _damaged(runner, error) from None
        before, now = len(state["processes"]), get_world_size()
        changed = f", not exactly: with {now} processes instead of {before}"
        runner.logger.info(f"Continuing in {where}{changed if now != before else ''}.")

    def before_val_epoch(self, runner: Runner) -> None:
        """Note that the run has validated."""
        self._has_validated = True

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Note that the validation is done, for checkpoints that hooks write of it."""
        loop = runner._train_loop  # the property would build one to validate alone
        if hasattr(loop, "progress"):
            loop.progress = loop.progress._replace(validated=True)


def _check_weights(runner: Runner, checkpoint: dict) -> None:
    """Make sure that a checkpoint to resume has all weights, also those that EMAHook averages."""
    source, advice = str(runner._load_from), "Resume a checkpoint of this config's own run"
    # EMAHook, which comes later, takes the names as they are.
    checkpoint["state_dict"] = load_exactly(unwrapped(runner), checkpoint, source, advice=advice)
    for average in averaged_networks(runner) if "ema_state_dict" in checkpoint else ():
        state = checkpoint["ema_state_dict"]
        load_exactly(average, state, f"ema_state_dict of {source}", "the average", advice)


def _damaged(runner: Runner, error: Exception) -> ValueError:
    return ValueError(
        f"the state in {runner._load_from} is damaged or of another model ({error!r}); resume an "
        "earlier checkpoint"
    )


def record_start(runner: Runner, run: dict[str, Any]) -> None:
    """Make the work folder that of a run, which this Runner starts or continues."""
    folder, log, loaded = Path(runner.work_dir), Path(runner.log_dir).name, str(runner._load_from)
    logs: list[str] = []
    checkpoints: list[str] = []
    if runner.iter:
        known = read_run(folder)
        written = {path.parts[-3] for path in folder.glob("*/vis_data/scalars.json")} - {log}
        logs = known.get("logs") or sorted(written)  # of another program, which lists none
        for name in known.get("checkpoints", []):  # what came after the loaded one is given up
            checkpoints.append(name)
            if Path(name).name == Path(loaded).name:
                break
        else:
            checkpoints = [loaded]
    if runner.iter < runner.max_iters:  # no student may take them for the weights of this run
        Path(folder, FINAL).unlink(missing_ok=True)
    write_run(folder, **run, logs=[*logs, log], checkpoints=checkpoints)
    if not runner.iter:
        Path(folder, POINTER).unlink(missing_ok=True)


def last_checkpoint(work_dir: str | Path) -> Path | None:
    """Find the checkpoint to resume from; its folder may have been moved since."""
    return find_checkpoint(work_dir)[0]


def find_checkpoint(work_dir: str | Path) -> tuple[Path | None, list[str]]:
    """Find the last checkpoint that is whole, and say what is wrong with later ones.

    ``run.json`` lists them. Of a folder without it, MMEngine's ``last_checkpoint`` names the one.
    """
    folder = Path(work_dir)
    problems: list[str] = []
    names = read_run(folder).get("checkpoints")
    pointer = folder / POINTER
    if names is None and pointer.is_file():
        names = [pointer.read_text(encoding="utf-8", errors="replace").strip()]
    for name in reversed(names or []):
        paths = (folder / Path(name).name, Path(name))
        path = next((path for path in paths if path.is_file()), Path(name))
        try:
            load_from_file(str(path), "meta")  # without reading the tensors
        except (FileNotFoundError, ValueError) as error:
            # What holds more than weights is refused when it is resumed.
            if not isinstance(error, UnsafeCheckpointError) or why_damaged(path, only_zip=True):
                problems.append(str(error))
                continue
        return path, problems
    return None, problems


MADE_OF = "made_of"  # the key in checkpoints
_RESUMABLE = {"optimizer", "meta", "message_hub"}  # what only a checkpoint to resume has
_SHOWN = 8  # differences in one message


class FingerprintHook(Hook):
    """Write into checkpoints what their run computes, and refuse to resume another run's.

    Compared are the config, the seed, the content of teachers' and of label files, and the
    training data's images and labels.
    """

    priority = "ABOVE_NORMAL"

    def __init__(self, computed: dict[str, Any], resume_changed: bool = False) -> None:
        self.computed = computed
        self.resume_changed = resume_changed
        self._data: list[str | None] = []

    def look_ahead(self, cfg: Config) -> None:
        """Compare the checkpoint before anything is built or written.

        The run takes the checkpoint's seed, as MMEngine does, but before the data loader is made.
        """
        path = cfg.get("load_from")
        if not cfg.get("resume") or path is None or "://" in str(path):
            return
        checkpoint = read_lazily(str(path))
        self._refuse(self._find_changes(checkpoint, str(path)), str(path))
        seed = checkpoint["meta"].get("seed")
        if type(seed) is int and seed != seed_of(cfg):
            cfg.randomness = dict(cfg.get("randomness") or {}, seed=seed)

    def _find_changes(self, checkpoint: Any, path: str) -> list[str]:
        """Say in what a checkpoint's run differs from this one, data aside."""
        if not isinstance(checkpoint, dict) or not set(checkpoint) >= _RESUMABLE:
            raise ValueError(
                f"{path} holds weights alone and cannot be resumed; take an epoch_N.pth, or set "
                "load_from to begin a new training with these weights"
            )
        if MADE_OF not in checkpoint:
            return []
        made_of = checkpoint[MADE_OF] if isinstance(checkpoint[MADE_OF], dict) else {}
        if "config" in made_of:
            return ["the version of mmkd_logit (0.1.0), whose settings cannot be compared"]
        return list_changes(made_of.get("computed"), self.computed)

    def _refuse(self, changes: list[str], path: str) -> None:
        if changes and not self.resume_changed:
            more = [f"and {len(changes) - _SHOWN} more"] if len(changes) > _SHOWN else []
            raise ValueError(
                f"{path} is of a run that differs in {'; '.join([*changes[:_SHOWN], *more])}. "
                "Restore that, begin a new run in another --work-dir, or go on all the same with "
                "--resume-changed"
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare also the data, which have been read by now."""
        if not runner._resume:
            return
        path = str(runner._load_from)
        changes = self._find_changes(checkpoint, path)
        if MADE_OF not in checkpoint:
            runner.logger.warning(
                f"{Path(path).name} does not say of what run it is; nothing is compared with it"
            )
            return
        before, now = checkpoint[MADE_OF].get("data"), self._data_hash(runner)
        if before is not None and before != now:
            changes.append(f"the training images or labels (hash {before} -> {now})")
        self._refuse(changes, path)
        if changes:
            runner.logger.warning(f"Going on all the same with {'; '.join(changes)}")
        earlier = (checkpoint[MADE_OF].get("computed") or {}).get("changed") or []
        if earlier or changes:  # no row of this run is that of the config as it is now
            runner.computed["changed"] = [*earlier, *changes]

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Write what the run computes, or the student of a group that the Runner is for now."""
        if "optimizer" in checkpoint:
            checkpoint[MADE_OF] = dict(computed=runner.computed, data=self._data_hash(runner))

    def _data_hash(self, runner: Runner) -> str | None:
        if not self._data:
            self._data = [dataset_hash(runner.train_dataloader.dataset)]
        return self._data[0]
