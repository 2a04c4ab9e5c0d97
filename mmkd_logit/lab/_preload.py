"""What the server imports once that processes of ``tools/reproduce.py`` are forked from."""

import atexit
import contextlib
import gc
import importlib
import sys

from mmkd_logit.engine.launch import silence_known_warnings
from mmkd_logit.utils.cli import TOOLS

silence_known_warnings()
_SLOW = ("mmpretrain.models", "yapf.yapflib.yapf_api")
_OURS = [f"mmkd_logit.{name}" for name in ("datasets", "hooks", "metrics", "models")]
_TOOLS = [module for module, _ in TOOLS.values() if ".engine." in module]
for _name in (*_SLOW, *_OURS, *_TOOLS, "mmkd_logit.lab.worker"):
    with (
        contextlib.suppress(ImportError),  # the run that needs it will say so
        contextlib.redirect_stdout(sys.stderr),  # standard output is for tables
    ):
        importlib.import_module(_name)
# MMEngine collects garbage with each data set; what is there by now is none.
gc.collect()
gc.freeze()
atexit.register(gc.unfreeze)  # or libraries report leaks when the server ends
