"""The teacher of a run alone."""

from mmengine.config import Config

from .runner_session import Probe, RunnerSession


class TeacherSession(RunnerSession):
    """A run of which only the teacher works, on one batch all along.

    Args:
        cfg: A complete config of a distiller.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__(cfg)
        self._batch = self.loader()()

    def step(self) -> None:
        """Let the teacher look at the batch, in the precision of the training."""
        with self.runner.optim_wrapper.optim_context(self.model):
            self.model.teacher_logits(self._batch["inputs"], self._batch["data_samples"])

    def probes(self) -> list[Probe]:
        """Return the one part that there is."""
        return [(self.model, "teacher_logits", "teacher")]
