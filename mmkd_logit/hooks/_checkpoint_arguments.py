"""Arguments of MMEngine's ``CheckpointHook``, which takes most of them as they come."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmkd_logit._checks import check_choice, check_count, check_flag, check_text


def check_checkpoint_arguments(given: Mapping[str, Any]) -> None:
    """Check what a checkpoint hook of ours hands on to its parent.

    Args:
        given: By name.

    Raises:
        ValueError: If an argument is of another kind.
    """
    for name in ("by_epoch", "save_optimizer", "save_param_scheduler", "save_last"):
        check_flag(name, given.get(name, True))
    for name in ("interval", "max_keep_ckpts"):  # -1 is never, and all
        check_count(name, given.get(name, -1), -1)
    check_count("save_begin", given.get("save_begin", 0), 0)
    if not isinstance(given.get("out_dir"), (Path, type(None))):
        check_text("out_dir", given["out_dir"], "the name of a folder or None")
    template = given.get("filename_tmpl")
    if template is not None and not (isinstance(template, str) and "{" in template):
        raise ValueError(f"filename_tmpl must be text such as 'epoch_{{}}.pth', got {template!r}")
    for name in ("save_best", "greater_keys", "less_keys", "published_keys"):
        for each in _several(given.get(name)):
            check_text(name, each, "text, a list of texts or None")
    for each in _several(given.get("rule")):
        if each is not None:
            check_choice("rule", each, ("greater", "less"))
    for name in ("backend_args", "file_client_args"):
        if not isinstance(given.get(name), (Mapping, type(None))):
            raise ValueError(
                f"{name} must be a dict such as dict(backend='local'), or None, got {given[name]!r}"
            )


def _several(value: Any) -> tuple:
    if isinstance(value, (list, tuple)):
        return tuple(value)
    return () if value is None else (value,)
