"""What MMEngine would pass over in silence, or fail on when a run has begun to write."""

import importlib
import importlib.util
import re
from contextlib import suppress
from difflib import get_close_matches
from inspect import signature

from mmengine.config import Config
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmkd_logit._arguments import type_name

from ._config_parts import parts_of
from ._config_values import check_values

# What is read from a config beside the Runner's own arguments.
_MORE_FIELDS = {"model_wrapper_cfg", "find_unused_parameters", "compile", "tta_model"}
_MORE_FIELDS |= {"tta_pipeline", "data_root", "sync_bn", "custom_imports"}
_MORE_FIELDS |= {"activation_checkpointing", "efficient_conv_bn_eval", "train_evaluator"}

# Of the variables in mmpretrain's configs none that is no pipeline comes closer than 0.82 to a
# field, and of a field with two letters exchanged few are further than this.
_CLOSE = 0.86


def fields_of(cfg: Config) -> set[str]:
    """Return the names that a setting on the command line may begin with.

    Args:
        cfg: Any config.
    """
    return {*cfg, *signature(Runner.__init__).parameters, *_MORE_FIELDS} - {"self"}


def check_config(cfg: Config) -> None:
    """Refuse a config whose names or values cannot be meant, before anything is written.

    Checked are misspelt fields, the arguments of every component that the Runner builds, by the
    signature of its class, and the values of plain settings. Variables of one's own are left
    alone unless they look like a misspelt field; an underscore in front tells them apart.

    Args:
        cfg: A complete config.

    Raises:
        ValueError: If something does not fit; the message names the field, what was given, what is
            allowed and the nearest name.
    """
    _check_fields(cfg)
    check_values(cfg)
    scope = cfg.get("default_scope") or "mmpretrain"
    if importlib.util.find_spec(scope) is None and ROOT._search_child(scope) is None:
        raise ValueError(
            "default_scope must be an installed package with registries, such as 'mmpretrain', "
            f"got {scope!r}"
        )
    with suppress(ImportError):  # as MMEngine, which makes its registries known so
        importlib.import_module(f"{scope}.registry")
    with DefaultScope.overwrite_default_scope(scope):
        for part in parts_of(cfg):
            part.check()
            if part.path == "data_preprocessor":
                _check_preprocessor(part.spec)


def _check_preprocessor(given: dict) -> None:
    """Check numbers that mmpretrain's preprocessor takes as they come; ours is one of its kind."""
    from mmkd_logit.models.batch_preprocessor import check_settings

    if type_name(given) in (None, "ClsDataPreprocessor", "BatchPreprocessor"):
        try:
            check_settings(given)
        except ValueError as error:
            raise ValueError(f"data_preprocessor: {error}") from None


def _check_fields(cfg: Config) -> None:
    known = fields_of(Config())
    for name in cfg:
        if name in known or name.startswith("_") or name.endswith("_pipeline"):
            continue
        if any(re.match(rf"{field}(_|\d)", name) for field in known):  # a second one
            continue
        close = get_close_matches(name, known, 1, cutoff=_CLOSE)
        if close:
            raise ValueError(
                f"a config has no field {name!r}; did you mean {close[0]}? (A variable of your own "
                f"passes as _{name}.)"
            )
