"""What the workers of data loaders draw, and their end."""

from typing import Any

from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmkd_logit.datasets.seeded_sampler import SeededSampler


def say_what_workers_draw(loader: DataLoader, runner: Runner, within: bool) -> None:
    """Say in the log if a run is resumed whose workers' random states are gone.

    Workers that begin with an epoch are seeded alike in each.

    Args:
        loader: Of the training data.
        runner: Whose log it is.
        within: Whether the run goes on within an epoch.
    """
    lost = loader.num_workers and (within or loader.persistent_workers)
    if lost and not isinstance(loader.sampler, SeededSampler):
        runner.logger.warning(
            "What transforms draw at random in the data loader's workers is not resumed. Where "
            "they do, use mmkd_logit.SeededSampler with mmkd_logit.SeededDataset, whose pictures "
            "do not depend on workers."
        )


def end_workers(runner: Runner) -> None:
    """End the workers of the data that a run has trained on, validated and tested.

    Collected as garbage with their Runner, whose parts name each other, each of them would be
    waited for five seconds.

    Args:
        runner: Done with them; what is read anew gets workers anew.
    """
    for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
        # The loader has those that persist, and a loop by iterations the pass that it is in.
        for name in ("dataloader", "dataloader_iterator"):
            owner: Any = getattr(loop, name, None)
            iterator: Any = getattr(owner, "_iterator", None)
            if hasattr(iterator, "_shutdown_workers"):
                owner._iterator = None
                iterator._shutdown_workers()
