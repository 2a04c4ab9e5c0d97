"""Weights of torchvision's networks under mmpretrain's names."""

import re
from collections.abc import Collection

from torch import Tensor

# Every parameter and buffer of torchvision's ResNet, ResNeXt and Wide ResNet.
_RESNET = re.compile(
    r"(conv1|bn1|layer[1-4]\.\d+\.(conv[123]|bn[123]|downsample\.[01])|fc)"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)
_RESNET_ENDS = {"conv1.weight", "fc.weight", "fc.bias"}


def with_mmpretrain_names(state: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Rename the weights of a torchvision ResNet as mmpretrain's classifier calls them.

    ``conv1.weight`` becomes ``backbone.conv1.weight`` and ``fc.weight`` ``head.fc.weight``;
    blocks have the same names in both. Nothing is renamed unless every name is torchvision's and
    the network asks for mmpretrain's, so a file that does not fit still shows its own names.

    Args:
        state: A state_dict.
        wanted: Names in the network that is to load it.

    Raises:
        ValueError: If the names are those of another network of torchvision's.
    """
    if not any(key.startswith("backbone.") for key in wanted):
        return state
    if {key.partition(".")[0] for key in state} == {"features", "classifier"}:  # VGG, MobileNet ...
        raise ValueError(
            "the weights have torchvision's names (features.*, classifier.*), and of its "
            "networks we translate ResNets alone. Take mmpretrain's weights: name the teacher "
            "by its model name, such as 'mobilenet-v2_8xb32_in1k'"
        )
    torchvisions = state.keys() >= _RESNET_ENDS and all(map(_RESNET.fullmatch, state))
    if not torchvisions or not {"backbone.conv1.weight", "head.fc.weight"} <= set(wanted):
        return state
    return {
        f"head.{key}" if key.startswith("fc.") else f"backbone.{key}": value
        for key, value in state.items()
    }
