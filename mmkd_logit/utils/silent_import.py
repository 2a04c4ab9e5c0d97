"""mmpretrain's data sets, imported without what they print on the way."""

import contextlib
import io
import sys

_said = io.StringIO()
try:
    with contextlib.redirect_stdout(_said):
        import mmpretrain.datasets  # noqa: F401
finally:
    for _line in _said.getvalue().splitlines():
        if _line != "Could not import OneDL":
            print(_line, file=sys.stderr)
