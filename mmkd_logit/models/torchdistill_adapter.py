"""Small trained networks between a feature and its loss, of the torchdistill library."""

from typing import Any

from torch import Tensor, nn

from mmkd_logit.losses._torchdistill import check_settings, find_class
from mmkd_logit.registry import MODELS

_MODULES = {
    "ConvReg": "models.adaptation",
    "Translator4FactorTransfer": "models.wrapper",
    "Paraphraser4FactorTransfer": "models.wrapper",
}


@MODELS.register_module()
class TorchdistillAdapter(nn.Module):
    """One of torchdistill's adapters.

    ============================  ===============================================================
    ``name``                      what
    ============================  ===============================================================
    'ConvReg'                     convolution, BatchNorm, ReLU unless ``uses_relu=False``: FitNets'
                                  regressor; without ReLU the connector of activation boundaries
    'Translator4FactorTransfer'   makes the student's factor of factor transfer
    'Paraphraser4FactorTransfer'  makes the teacher's factor, ``k`` times as many channels, and
                                  learns to restore the feature from it
    ============================  ===============================================================

    Args:
        name: One of the above.
        **settings: Its own, such as ``num_input_channels``.

    Raises:
        ImportError: Without torchdistill.
        ValueError: If there is no such adapter, or it has no such setting.

    Example:
        >>> import torch
        >>> regressor = TorchdistillAdapter(
        ...     'ConvReg', num_input_channels=4, num_output_channels=8, kernel_size=1, stride=1,
        ...     padding=0)
        >>> regressor(torch.rand(2, 4, 6, 6)).shape
        torch.Size([2, 8, 6, 6])
    """

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__()
        if name not in _MODULES:
            raise ValueError(f"name={name!r} is not one of {', '.join(map(repr, _MODULES))}")
        build = find_class(_MODULES[name], name)
        check_settings(name, build, settings)
        self.name = name
        self.module = build(**settings)

    @property
    def reconstructs(self) -> bool:
        """Whether it learns by restoring its input, with :meth:`reconstruct`."""
        return hasattr(self.module, "decoder")

    def forward(self, features: Tensor) -> Tensor:
        """Adapt features.

        Args:
            features: (N, C, H, W).

        Returns:
            (N, C', H', W').
        """
        return self.module.encoder(features) if self.reconstructs else self.module(features)

    def reconstruct(self, adapted: Tensor) -> Tensor:
        """Restore the features.

        Args:
            adapted: What :meth:`forward` made of them.

        Returns:
            (N, C, H, W).
        """
        return self.module.decoder(adapted)
