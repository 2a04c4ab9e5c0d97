"""A file backend of MMEngine's that writes files whole or not at all."""

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from mmkd_logit._atomic_files import replacing, write_text
from mmkd_logit._sealed_files import sealed

ATOMIC = "mmkd_logit.atomic"


class AtomicBackend(LocalBackend):
    """MMEngine's local files, which appear whole or not at all.

    Checkpoints get a seal, by which a later run sees whether they are whole. It is registered
    as ``mmkd_logit.atomic``, for ``backend_args=dict(backend='mmkd_logit.atomic')``.
    """

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        """Write a file.

        Args:
            obj: Its content.
            filepath: Where.

        Raises:
            OSError: If it cannot be written; what was there is as before.
        """
        with replacing(filepath, len(obj)) as file:
            for part in sealed(bytes(obj)):
                file.write(part)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        """Write a text.

        Args:
            obj: The text.
            filepath: Where.
            encoding: UTF-8, the only one.

        Raises:
            OSError: If it cannot be written; what was there is as before.
        """
        assert encoding.lower() in ("utf-8", "utf8")
        write_text(filepath, obj)


register_backend(ATOMIC, AtomicBackend, force=True)
