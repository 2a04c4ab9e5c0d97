"""MobileNetV2 for CIFAR."""

from typing import Any, ClassVar

from mmcv.cnn import build_activation_layer, build_conv_layer, build_norm_layer
from mmpretrain.models.backbones.mobilenet_v2 import MobileNetV2

from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import check_flag, check_number

from .build import check_init_cfg, check_layer

_CONV, _NORM, _ACTIVATION = "dict(type='Conv2d')", "dict(type='BN')", "dict(type='ReLU6')"


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
        _check_settings(**kwargs)
        super().__init__(**kwargs)
        self.conv1.conv.stride = self.conv1.stride = (1, 1)  # fixed to 2 by the parent


def _check_settings(
    widen_factor: Any = 1.0,
    conv_cfg: Any = None,
    norm_cfg: Any = None,
    act_cfg: Any = None,
    norm_eval: Any = False,
    with_cp: Any = False,
    init_cfg: Any = None,
    **others: Any,
) -> None:
    """Check what the parent takes as it comes."""
    check_number("widen_factor", widen_factor, zero=False)
    check_layer("conv_cfg", conv_cfg, lambda cfg: build_conv_layer(cfg, 8, 8, 1), _CONV)
    check_layer("norm_cfg", norm_cfg, lambda cfg: build_norm_layer(cfg, 32), _NORM)
    check_layer("act_cfg", act_cfg, build_activation_layer, _ACTIVATION)
    check_flag("norm_eval", norm_eval)
    check_flag("with_cp", with_cp)
    check_init_cfg(init_cfg)
    for name in ("out_indices", "frozen_stages"):
        given = others.get(name)
        for each in given if isinstance(given, (list, tuple)) else [given]:
            if name in others and (type(each) is not int or not -1 <= each <= 7):
                raise ValueError(f"{name}={given!r}: the stages are 0 to 7, and -1 is none")
