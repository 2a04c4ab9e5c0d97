"""What the server imports once that processes of ``tools/reproduce.py`` are forked from."""

import importlib
import warnings

# As silence_known_warnings, which cannot be imported before it is needed.
warnings.filterwarnings("ignore", message="Fail to import ``MultiScaleDeformableAttention``")
for _name in ("mmpretrain.models", "mmkd_logit.experiments.worker"):
    importlib.import_module(_name)
