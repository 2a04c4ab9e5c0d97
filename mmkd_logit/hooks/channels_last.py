"""Memory format channels_last for the student."""

import gc

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only

from mmkd_logit.registry import HOOKS

from .networks import averaged_networks, optimizers, unwrapped


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Train with the model's 4-d parameters in ``torch.channels_last``.

    Images need no change: a convolution with such weights gives such features. Values are the
    same, sums inside convolutions may be rounded otherwise.

    The layout changes once, before the first iteration: after the weights are initialised (filled
    in another order they would be others) or loaded. The copy that ``EMAHook`` keeps and a resumed
    optimizer's momenta change with them. Checkpoints hold contiguous tensors, as without this
    hook, and either kind of run resumes the other's.

    The model has been wrapped by then, and DDP, which took down the old layout, would mix up the
    places in the gradients of the first step (torch 2.15 over gloo; with
    ``find_unused_parameters=True`` of all steps), so it is wrapped anew.

    Raises:
        ValueError: Before training, if the model is wrapped by anything but DDP.
    """

    # After EMAHook has put its weights into a checkpoint, and FinalCheckpointHook taken some out.
    priority = "LOWEST"

    def before_train(self, runner: Runner) -> None:
        """Change the layout of everything that is trained."""
        model = unwrapped(runner)
        wrapped = model is not runner.model
        if wrapped and not isinstance(runner.model, DistributedDataParallel):
            raise ValueError(
                "ChannelsLastHook works with DDP or without a model wrapper, got "
                f"{type(runner.model).__name__}; take the hook out"
            )
        before = [parameter.stride() for parameter in model.parameters()]
        for network in (model, *averaged_networks(runner)):
            network.to(memory_format=torch.channels_last)
        for optimizer in optimizers(runner):
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        if wrapped and before != [parameter.stride() for parameter in model.parameters()]:
            runner.model = model  # the old wrapper goes before there is a new one
            gc.collect()
            runner.model = runner.wrap_model(runner.cfg.get("model_wrapper_cfg"), model)
            runner._maybe_compile("train_step")  # which was the old wrapper's

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Have contiguous tensors saved."""
        for key in ("state_dict", "ema_state_dict"):
            state = checkpoint.get(key, {})
            state.update({name: value.contiguous() for name, value in state.items()})
        if "optimizer" in checkpoint:
            checkpoint["optimizer"] = tree_map_only(
                Tensor, Tensor.contiguous, checkpoint["optimizer"]
            )
