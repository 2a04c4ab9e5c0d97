"""Logit distillation for OpenMMLab: losses, a distiller and the paper's experiments.

Everything is built from configs by its scoped name, such as
``dict(type='mmkd_logit.LogitMSELoss')``; no ``custom_imports`` is needed.
"""

from importlib.util import find_spec

from .version import __version__

__all__ = ["__version__"]

_missing = [name for name in ("mmengine", "mmcv", "mmpretrain") if find_spec(name) is None]
if _missing:
    raise ImportError(
        f"mmkd_logit needs {', '.join(_missing)}. Install one of the two stacks, never both, "
        "since they own the same modules:\n"
        "    pip install 'mmkd-logit[onedl]'      (maintained builds, the default)\n"
        "    pip install 'mmkd-logit[openmmlab]'  (the original packages)"
    )
