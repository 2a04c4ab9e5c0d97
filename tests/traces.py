"""What command lines that are run in this process would leave behind."""

import os
import tarfile
from contextlib import contextmanager

from mmengine.fileio.handlers.registry_utils import file_handlers
from mmengine.runner import CheckpointLoader


@contextmanager
def no_trace():
    """Undo what they set: variables, and how files are read."""
    environment, schemes = dict(os.environ), CheckpointLoader._schemes.copy()
    handlers, unpacking = file_handlers.copy(), tarfile.TarFile.__dict__.get("extraction_filter")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        CheckpointLoader._schemes = schemes
        file_handlers.update(handlers)
        tarfile.TarFile.extraction_filter = unpacking
