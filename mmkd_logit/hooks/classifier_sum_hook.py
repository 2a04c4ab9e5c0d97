"""Whether the last layer's sum over classes learns anything."""

from typing import Any

from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner

from mmkd_logit.registry import HOOKS

from ._decayed_sum import DecayedSum
from ._watched import last_linear, optimizers, trained_networks

_STATE = "classifier_sum"


@HOOKS.register_module()
class ClassifierSumHook(Hook):
    r"""Log the sum over classes of the last linear layer's weight, and what was predicted of it.

    A loss that does not change when a constant is added to all logits, as cross-entropy and KL at
    every temperature, has gradients whose sum over classes is 0. So :math:`s = \sum_k W_k` moves
    by weight decay alone, on a line towards 0. The MSE of logits pulls it towards what the
    teacher's logits sum to. Logged are

    - ``classifier/sum_norm``: :math:`\lVert s_t \rVert`,
    - ``classifier/sum_predicted``: the norm :math:`\lVert c_t s_0 \rVert` that weight decay alone
      gives, by the recursion of ``torch.optim.SGD`` with the learning rate of every step,
    - ``classifier/sum_deviation``: :math:`\lVert s_t - c_t s_0 \rVert / \lVert s_0 \rVert`,
    - ``classifier/bias_sum``: the sum of the biases, where there are any.

    They are the values after the very iteration whose log line they are in, no averages. With
    another optimizer, and in a run resumed from a checkpoint without this hook's state, there is
    no prediction; of weights that begin as zeros there is no relative deviation. Students of a
    :class:`StudentGroup` have ``NAME/`` before these keys. A model without such a layer has none.
    Nothing is trained otherwise, and no iteration waits for the device.
    """

    changes_training = False
    priority = "HIGHEST"  # before RuntimeInfoHook notes what is logged

    def __init__(self) -> None:
        self._sums: dict[str, DecayedSum] = {}
        self._resumed: dict[str, Any] | None = None
        self._intervals: list[int] = []

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Find where the run that is resumed was."""
        if runner._resume:
            found = checkpoint.get(_STATE)
            self._resumed = found if isinstance(found, dict) else {}

    def before_train(self, runner: Runner) -> None:
        """Find the layers, and note where they begin."""
        self._intervals = [h.interval for h in runner.hooks if isinstance(h, LoggerHook)]
        self._sums = {}
        for prefix, network in trained_networks(runner).items():
            layer = last_linear(network)
            if layer is None:
                continue
            found = self._sums[prefix] = DecayedSum(layer, list(optimizers(runner)))
            if self._resumed is None:
                found.begin()
            elif self._resumed.get(prefix) is not None:
                found.load_state_dict(self._resumed[prefix])
            _forget(runner, f"train/{prefix}classifier/", set(found.values()))
        self._resumed = None

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict | None = None,
    ) -> None:
        """Add the values to what is logged, where a log line follows or an epoch ends."""
        logged = any(self.every_n_inner_iters(batch_idx, n) for n in self._intervals)
        if outputs is None or not (logged or self.end_of_epoch(runner.train_dataloader, batch_idx)):
            return
        for prefix, found in self._sums.items():
            for name, value in found.values().items():
                outputs[f"{prefix}classifier/{name}"] = value

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep what is needed to resume."""
        if "optimizer" not in checkpoint:
            return
        states: dict[str, Any] = {}
        for prefix, network in trained_networks(runner).items():
            layer = last_linear(network)
            for found in self._sums.values():
                if found.layer is layer:  # one of a group has no prefix in a file of its own
                    states[prefix] = found.state_dict()
        if states:
            checkpoint[_STATE] = states

    def after_train(self, runner: Runner) -> None:
        """Let go of the optimizers."""
        for found in self._sums.values():
            found.end()


def _forget(runner: Runner, begin: str, names: set[str]) -> None:
    """Let no log line repeat a value of before that is not known any more."""
    scalars = runner.message_hub.log_scalars
    for key in list(scalars):
        if key.startswith(begin) and key.removeprefix(begin) not in names:
            del scalars[key]
