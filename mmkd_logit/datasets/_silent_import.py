"""mmpretrain's data sets, imported without what they print on the way.

Where OneDL's client is not installed, its build of mmpretrain says so on standard output, as a line
for debugging that no level of logging holds back. Ours is for tables. Anything else that importing
prints goes to standard error.
"""

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
