"""What the server imports once that processes of ``tools/reproduce.py`` are forked from."""

from mmkd_logit.engine.launch import silence_known_warnings

silence_known_warnings()

import mmpretrain.models  # noqa: E402, F401

from . import worker  # noqa: E402, F401
