"""A Runner whose checkpoints are of all its processes."""

from typing import Any

from ._quiet_runner import QuietRunner


class ResumableRunner(QuietRunner):
    """A Runner that collects the state of every process before the first one saves.

    Attributes:
        made_of: What the run is made of, as its checkpoints say (:mod:`.run_identity`).
    """

    made_of: dict[str, Any] | None = None

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint; every process calls this.

        Args:
            *args: As of MMEngine's.
            **kwargs: As of MMEngine's.
        """
        if kwargs.get("save_optimizer", True):  # else nobody can resume it
            self.call_hook("gather_state")
        super().save_checkpoint(*args, **kwargs)
