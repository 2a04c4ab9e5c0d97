"""Wide residual networks for CIFAR."""

from collections.abc import Sequence

from mmcv.cnn import build_norm_layer
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import check_choice, check_count, check_flag, check_number

from .build import check_layers


class _PreActivationBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-(dropout)-conv plus the shortcut.

    A shortcut that has to change the shape is a 1x1 convolution of the activated input, as in the
    authors' code; otherwise it is the raw input.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, drop_rate: float, norm_cfg: dict
    ) -> None:
        super().__init__()
        self.norm1 = build_norm_layer(norm_cfg, in_channels)[1]
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm2 = build_norm_layer(norm_cfg, out_channels)[1]
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(drop_rate) if drop_rate > 0 else None
        self.shortcut = (
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            if in_channels != out_channels or stride != 1
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        out = self.relu(self.norm2(self.conv1(activated)))
        if self.dropout is not None:
            out = self.dropout(out)
        return self.conv2(out) + shortcut


@MODELS.register_module()
class WideResNetCIFAR(BaseBackbone):
    r"""WRN-``depth``-``widen_factor`` (Zagoruyko and Komodakis, BMVC 2016), pre-activation.

    A 3x3 stem, then three groups of :math:`(depth - 4) / 6` blocks with
    :math:`16k, 32k, 64k` channels for the widen factor :math:`k`, then BN-ReLU. Put a
    ``GlobalAveragePooling`` neck and a ``LinearClsHead`` behind it for the network of Kim et al.
    (IJCAI 2021). Its parameters at 100 classes: 703,284 (16-2), 1,479,220 (28-2),
    5,872,180 (28-4).

    The defaults are for 32x32 colour images. Small images need no other network, only other
    numbers: ``in_channels=1`` for grey ones, and for 8x8 images the mode that keeps their
    resolution for longer, ``strides=(1, 1, 2)`` (feature maps of 8, 8 and 4 pixels). With the
    default strides 28x28 images end at 7x7.

    Args:
        depth: Number of layers, :math:`6n + 4`: 10, 16, 22, 28, 40 ...
        widen_factor: Multiplies the width of the three groups.
        in_channels: Channels of the image.
        stem_channels: Channels after the stem.
        base_channels: Width of the first group at ``widen_factor=1``; the others double.
        strides: Stride of the first block of each group.
        drop_rate: Dropout between the two convolutions of a block, in ``[0, 1)``.
        out_indices: Which groups' outputs to return, of 0, 1, 2. Group 2 comes after the final
            BN-ReLU, the others as they are.
        frozen_stages: Stages that are kept in evaluation mode and without gradient: -1 none,
            0 the stem, 1 to 3 the stem and that many groups (3: the final norm too).
        norm_eval: Whether all normalisation layers stay in evaluation mode while training.
        norm_cfg: Config of the normalisation layers.
        init_cfg: Initialisation. The paper's: convolutions from
            :math:`N(0, \sqrt{2 / (k^2 C_{out}))}`, normalisation 1 and 0.

    Raises:
        ValueError: If an argument is not one of the values above.

    Example:
        >>> import torch
        >>> from mmkd_logit.models import WideResNetCIFAR
        >>> net = WideResNetCIFAR(16, 2, out_indices=(0, 1, 2)).eval()
        >>> [tuple(x.shape) for x in net(torch.rand(1, 3, 32, 32))]
        [(1, 32, 32, 32), (1, 64, 16, 16), (1, 128, 8, 8)]
    """

    def __init__(
        self,
        depth: int,
        widen_factor: int,
        in_channels: int = 3,
        stem_channels: int = 16,
        base_channels: int = 16,
        strides: Sequence[int] = (1, 2, 2),
        drop_rate: float = 0.0,
        out_indices: Sequence[int] = (2,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        norm_cfg: dict | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        check_layers(init_cfg, norm_cfg=norm_cfg)
        if init_cfg is None:
            init_cfg = [
                dict(type="Kaiming", layer="Conv2d", mode="fan_out", nonlinearity="relu"),
                dict(type="Constant", layer=["_BatchNorm", "GroupNorm"], val=1, bias=0),
            ]
        super().__init__(init_cfg)
        if type(depth) is not int or depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth must be 6n + 4 (10, 16, 22, 28, 40 ...), got {depth!r}")
        if not isinstance(strides, (list, tuple)) or len(strides) != 3:
            raise ValueError(f"strides must be three integers from 1 on, got {strides!r}")
        if drop_rate is False or check_number("drop_rate", drop_rate) >= 1:
            raise ValueError(f"drop_rate must be in [0, 1), got {drop_rate!r}")
        if not isinstance(out_indices, (list, tuple)) or not out_indices:
            raise ValueError(f"out_indices must be a list of 0, 1 and 2, got {out_indices!r}")
        for stride in strides:
            check_count("each of strides", stride)
        for index in out_indices:
            check_choice("each of out_indices", index, (0, 1, 2))
        if len(set(out_indices)) < len(out_indices):
            raise ValueError(f"out_indices must be different, got {out_indices!r}")
        check_choice("frozen_stages", frozen_stages, (-1, 0, 1, 2, 3))
        check_count("widen_factor", widen_factor)
        check_count("in_channels", in_channels)
        check_count("stem_channels", stem_channels)
        check_count("base_channels", base_channels)
        check_flag("norm_eval", norm_eval)
        norm_cfg = dict(type="BN") if norm_cfg is None else norm_cfg
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        widths = [base_channels * widen_factor * 2**i for i in range(3)]

        self.stem = nn.Conv2d(in_channels, stem_channels, 3, 1, 1, bias=False)
        self.groups = nn.ModuleList()
        channels = stem_channels
        for width, stride in zip(widths, strides, strict=True):
            group = nn.Sequential()
            for i in range((depth - 4) // 6):
                first = stride if i == 0 else 1
                group.append(_PreActivationBlock(channels, width, first, drop_rate, norm_cfg))
                channels = width
            self.groups.append(group)
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.relu = nn.ReLU(inplace=True)
        self.feat_dim = channels
        self._freeze_stages()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute a feature map (N, C, H', W') for each of ``out_indices``."""
        outs = []
        x = self.stem(x)
        for i, group in enumerate(self.groups):
            x = group(x)
            if i in self.out_indices:
                outs.append(self.relu(self.norm(x)) if i == 2 else x)
        return tuple(outs)

    def train(self, mode: bool = True) -> "WideResNetCIFAR":
        """Set the mode, leaving frozen stages (and, with ``norm_eval``, norms) in evaluation."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze_stages(self) -> None:
        frozen: list[nn.Module] = []
        if self.frozen_stages >= 0:
            frozen.append(self.stem)
        frozen.extend(self.groups[: max(self.frozen_stages, 0)])
        if self.frozen_stages == 3:
            frozen.append(self.norm)
        for module in frozen:
            module.eval()
            module.requires_grad_(False)
