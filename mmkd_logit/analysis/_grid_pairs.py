"""Which runs of an exhibit make a grid over alpha and tau."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .style import look_of, name_of


class Pair(NamedTuple):
    """A student and its teacher over a grid.

    Attributes:
        title: Who teaches whom.
        names: Of runs, by what a legend calls the method, and alpha.
        methods: What legends call the methods, by growing tau.
        alphas: Growing.
    """

    title: str
    names: dict[tuple[str, float], str]
    methods: list[str]
    alphas: list[float]


def find_pairs(record: Mapping[str, Any]) -> list[Pair]:
    """Find the grids of an exhibit: one student and teacher at several alphas.

    Args:
        record: Of an exhibit file.
    """
    groups: dict[tuple, dict[tuple[str, float], set[str]]] = {}
    orders: dict[str, float] = {}
    for run in record["runs"]:
        how = run["method"]
        if run["name"] not in record["cells"] or how["kind"] not in ("kl", "mse"):
            continue
        noise = how.get("label_noise") or {}
        key = (how.get("network"), how.get("teacher_config"), noise.get("kind"), noise.get("rate"))
        place = (name_of(how), float(how["alpha"]))
        orders[place[0]] = look_of(how).order
        groups.setdefault(key, {}).setdefault(place, set()).add(run["name"])
    pairs = []
    for places in groups.values():
        alphas = sorted({alpha for _, alpha in places})
        if len(alphas) > 1 and all(len(names) == 1 for names in places.values()):
            names = {place: next(iter(found)) for place, found in places.items()}
            methods = sorted({method for method, _ in names}, key=lambda each: orders[each])
            pairs.append(Pair(_title(record, list(names.values())), names, methods, alphas))
    return pairs


def _title(record: Mapping[str, Any], names: list[str]) -> str:
    """Return what the labels of the rows say beside the temperature."""
    rows = {record["cells"][name][0] for name in names}
    titles = {re.sub(r"[\s,;:]*\b(KL\s+)?(tau|τ)\b.*$", "", row) for row in rows}
    return (titles.pop() if len(titles) == 1 else "") or record["title"]
