"""Arguments of MMEngine's ``BaseMetric``, which takes them as they come."""

from typing import Any

from mmkd_logit._checks import check_choice, check_text


def check_collecting(collect_device: Any, prefix: Any, collect_dir: Any) -> None:
    """Check how processes exchange what they measured, and under which name it appears.

    Args:
        collect_device: As of ``BaseMetric``.
        prefix: As of ``BaseMetric``.
        collect_dir: As of ``BaseMetric``.

    Raises:
        ValueError: If one is of another kind.
    """
    check_choice("collect_device", collect_device, ("cpu", "gpu"))
    if prefix is not None:
        check_text("prefix", prefix, "text or None")
    if collect_dir is not None:
        check_text("collect_dir", collect_dir, "the name of a folder or None")
