"""What a command line changes in its process before it reads a file that may be anybody's.

MMEngine reads ``.pkl`` with pickle and ``.yaml`` with a loader that calls any function, an
environment variable makes torch's reader of checkpoints careless, and Python's tarfile writes
wherever an archive says.
"""

import os
import tarfile
from typing import Any

import yaml
from mmengine.fileio import PickleHandler, YamlHandler, register_handler

from .checkpoint import FORBID, install_safe_checkpoint_loading

# In Python it takes seconds a config, as MMEngine reads 85 files of mmpretrain's for each.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _PlainLoader(_Loader):
    """Reads what ``yaml.safe_load`` reads, and the tuples that MMEngine writes."""


_PlainLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple",
    lambda loader, node: tuple(loader.construct_sequence(node)),
)


class _PlainYaml(YamlHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        try:
            return yaml.load(file, _PlainLoader)
        except yaml.YAMLError as error:
            raise ValueError(f"YAML is refused: {' '.join(str(error).split())}") from None


class _NoPickle(PickleHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        raise ValueError(
            "a pickle (.pkl) is refused, since it could run code when read; write what it holds "
            "as JSON and name that file"
        )


def install_safe_reading() -> None:
    """Let this process, and those that it starts, run nothing that lies in a data file.

    Checkpoints are read by :func:`install_safe_checkpoint_loading`, and any other ``torch.load``
    that does not say otherwise takes tensors and plain containers alone, whatever
    ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` says. What MMEngine reads by a file's ending, such as
    annotations of a data set, is JSON or plain YAML; a pickle is refused, though still written.
    No member of an archive is unpacked outside the folder that it is unpacked to, on Python
    3.10.12, 3.11.4, 3.12 and later.

    Our command lines call it before they read anything. A config is a program all the same,
    whatever its ending: it names the functions to call.

    Example:
        >>> from mmkd_logit.engine import install_safe_reading
        >>> install_safe_reading()
    """
    install_safe_checkpoint_loading()
    os.environ.pop(FORBID, None)
    register_handler(["yaml", "yml"])(_PlainYaml)
    register_handler(["pkl", "pickle"])(_NoPickle)
    if hasattr(tarfile, "data_filter"):
        tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
