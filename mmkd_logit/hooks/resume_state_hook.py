"""What a run needs to go on exactly."""

from typing import Any

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmkd_logit.registry import HOOKS

from ._hook_states import capture_hooks, count_steps, restore_hooks, tell_early_stopping
from ._place import Place, read_place
from ._process_state import capture_process, gather_processes, restore_process
from ._random_states import capture_random_states, restore_random_states

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
