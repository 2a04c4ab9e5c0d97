"""A Runner that measures the weights of a checkpoint and no others."""

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ._quiet_runner import QuietRunner


class ExactRunner(QuietRunner):
    """A Runner that refuses a checkpoint of another network, where MMEngine would only warn.

    What would be left at random would be measured. Entries of a checkpoint for parts that the
    network does not have at all, such as a distiller's adapters, are left out.
    """

    def load_checkpoint(self, filename: str, *args: Any, **kwargs: Any) -> Any:
        """Load the weights, all of them.

        Args:
            filename: Path or URL.
            *args: As of MMEngine's.
            **kwargs: As of MMEngine's, but for ``strict``.

        Raises:
            ValueError: If they are not those of the network.
        """
        self.register_hook(_LeaveOthers())
        try:
            return super().load_checkpoint(filename, *args, **{**kwargs, "strict": True})
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = "; ".join(line[:200] for line in lines[1:4]) or str(error)
            raise ValueError(
                f"{filename} does not fit the network of this config: {reason}. Name the config "
                "that the checkpoint was trained by"
            ) from None


class _LeaveOthers(Hook):
    """Leave out of a checkpoint what is of no part of the network."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model: Any = runner.model.module if is_model_wrapper(runner.model) else runner.model
        state = checkpoint.get("state_dict", checkpoint)
        if not isinstance(state, Mapping) or model._load_state_dict_pre_hooks:  # which rename
            return
        parts = {name for name, _ in model.named_children()}
        parts |= {*model._parameters, *model._buffers}
        named = {key: str(key).removeprefix("module.").partition(".")[0] for key in state}
        if not parts.intersection(named.values()):
            return
        others = [key for key, part in named.items() if part not in parts]
        for key in others:
            del state[key]  # type: ignore[attr-defined]
        if others:
            more = f" and {len(others) - 1} more" if len(others) > 1 else ""
            print_log(f"Leaving out {others[0]}{more}, of no part of the network.", "current")
