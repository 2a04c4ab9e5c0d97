"""MobileNetV2 for CIFAR."""

from typing import Any, ClassVar

from mmpretrain.models.backbones.mobilenet_v2 import MobileNetV2

from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import check_flag, check_number

from .build import check_layers


@MODELS.register_module()
class MobileNetV2CIFAR(MobileNetV2):
    """mmpretrain's MobileNetV2 with two strides of 2 made 1, for images of CIFAR's size.

    These are the stem's and that of the second group (24 channels), the change that
    kuangliu/pytorch-cifar made common: a 32x32 image ends as 4x4 and not as 1x1. Weights,
    their names and all options stay those of mmpretrain's network. RepDistiller's student of the
    same name differs: stem of stride 2, half the width, ReLU.

    Args:
        **kwargs: Of mmpretrain's ``MobileNetV2``, such as ``widen_factor``.

    Raises:
        ValueError: If ``widen_factor`` is not above 0, or another argument of another kind.

    Example:
        >>> import torch
        >>> from mmkd_logit.models import MobileNetV2CIFAR
        >>> net = MobileNetV2CIFAR(widen_factor=0.25)
        >>> [tuple(x.shape) for x in net(torch.rand(2, 3, 32, 32))]
        [(2, 1280, 4, 4)]
    """

    # Expansion, channels, blocks, stride of the first block.
    arch_settings: ClassVar[list] = [
        [expand, channels, blocks, 1 if channels == 24 else stride]
        for expand, channels, blocks, stride in MobileNetV2.arch_settings
    ]

    def __init__(self, **kwargs: Any) -> None:
        check_number("widen_factor", kwargs.get("widen_factor", 1.0), zero=False)
        for name in ("norm_eval", "with_cp"):
            check_flag(name, kwargs.get(name, False))
        names = ("init_cfg", "conv_cfg", "norm_cfg", "act_cfg")
        check_layers(**{name: kwargs.get(name) for name in names})
        super().__init__(**kwargs)
        self.conv1.conv.stride = self.conv1.stride = (1, 1)  # fixed to 2 by the parent
