"""Group the runs of an experiment: by row of its table, by grid of alpha and tau, by teacher."""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .style import TEACHER, Look, is_taught, look_of, name_of, noise_name, shades

Run = dict[str, Any]
Record = Mapping[str, Any]
_LAST = "weights after the last epoch, nothing selected"


@dataclass
class Method:
    """The finished runs of one method, and how they are drawn."""

    name: str  # in legends
    look: Look
    runs: dict[int, Run]  # by seed
    failed: int  # how many seeds did not finish


@dataclass
class Group:
    """What one figure shows: methods in the order of legends."""

    title: str
    methods: list[Method]
    notes: list[str] = field(default_factory=list)  # what is not shown
    tag: str = ""  # for names of files, if the title is not in them

    @property
    def runs(self) -> list[Run]:
        """All runs."""
        return [run for method in self.methods for run in method.runs.values()]

    @property
    def seeds(self) -> list[int]:
        """All seeds, ascending."""
        return sorted({seed for method in self.methods for seed in method.runs})


def _methods(record: Record, names: Iterable[str], teachers: Collection[str] = ()) -> list[Method]:
    """Name runs and give them looks; runs that would have one name are called as in the table."""
    runs = {name: [run for run in record["runs"] if run["name"] == name] for name in names}
    how = {name: found[0]["method"] for name, found in runs.items()}
    labels = {name: "teacher" if name in teachers else name_of(how[name]) for name in runs}
    looks = {name: TEACHER if name in teachers else look_of(how[name]) for name in runs}
    counts = Counter(labels.values())
    for name in runs:
        if counts[labels[name]] > 1 or how[name]["kind"] == "other":
            row, column = record["cells"].get(name, (name, ""))
            labels[name] = column or row
    counts = Counter(labels.values())
    for name in runs:
        if counts[labels[name]] > 1:  # the same column of several rows
            labels[name] = ", ".join(filter(None, record["cells"].get(name, (name,))))
    for drawn in {look[:3] for look in looks.values()}:
        same = [name for name in runs if looks[name][:3] == drawn]
        looks.update(zip(same, shades(looks[same[0]], len(same)), strict=True))
    methods = []
    for name in sorted(runs, key=lambda name: looks[name].order):
        finished = {run["seed"]: run for run in runs[name] if run["row"]}
        failed = len(runs[name]) - len(finished)
        methods.append(Method(labels[name], looks[name], finished, failed))
    return methods


def describe_seeds(counts: Iterable[int]) -> str:
    """Return over how many seeds means are."""
    found = set(counts) - {0}
    if found == {1}:
        return "n = 1 seed, so no spread"
    return f"n = {span(found)} seeds" if found else "n = 0"


def describe_epochs(runs: Iterable[Run]) -> str:
    """Return how long finished runs were trained."""
    found = {run["epochs"] for run in runs if run["row"] and run["epochs"]}
    if not found:
        return "epochs unknown"
    return f"{span(found)} epoch{'s' if found != {1} else ''}"


def describe_cells(record: Record, names: Collection[str]) -> str:
    """Return the protocol of the means in cells: seeds, epochs, weights."""
    cells = [m["cells"][name] for m in record["metrics"] for name in names]
    epochs = describe_epochs(run for run in record["runs"] if run["name"] in names)
    return f"{describe_seeds(cell['n'] for cell in cells)}; {epochs}; {_LAST}"


def span(counts: Collection[int]) -> str:
    """Return the least and the largest of counts."""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


class Grid(NamedTuple):
    """A student, its teacher and one loss at several alphas and temperatures."""

    title: str
    names: dict[tuple[str, float], str]  # of runs, by method, as in legends, and alpha
    methods: list[str]  # ascending in tau
    alphas: list[float]  # ascending
    shown: float  # the largest alpha that every method has, for figures of one alpha


def find_grids(record: Record) -> list[Grid]:
    """Find the grids of an experiment."""
    groups: dict[str, dict[tuple[str, float], list[str]]] = {}
    orders: dict[str, float] = {}
    for name, how in {run["name"]: run["method"] for run in record["runs"]}.items():
        if name in record["cells"] and is_taught(how) and not how.get("weights"):
            key = json.dumps([how[k] for k in ("network", "teacher_config", "label_noise", "kind")])
            orders[name_of(how)] = look_of(how).order
            place = name_of(how), float(how["alpha"])
            groups.setdefault(key, {}).setdefault(place, []).append(name)
    grids: list[Grid] = []
    for places in groups.values():
        alphas = sorted({alpha for _, alpha in places})
        methods = sorted({method for method, _ in places}, key=orders.__getitem__)
        shared = [a for a in alphas if all((method, a) in places for method in methods)]
        several = len(alphas) > 1 and len(methods) > 1 and shared
        if several and all(len(found) == 1 for found in places.values()):
            names = {place: found[0] for place, found in places.items()}
            # What the labels of the rows say beside the temperature.
            rows = {record["cells"][name][0] for name in names.values()}
            titles = {re.sub(r"[\s,;:]*\b(KL\s+)?(tau|τ)\b.*$", "", row) for row in rows}
            title = (titles.pop() if len(titles) == 1 else "") or record["title"]
            if title in [grid.title for grid in grids]:  # of another loss
                title += f" ({methods[0].partition(' τ = ')[0]})"
            grids.append(Grid(title, names, methods, alphas, shared[-1]))
    return grids


def teachers_of_ce(record: Record) -> set[str]:
    """Return the names of runs by cross-entropy that teach other runs."""
    folders = {folder for run in record["runs"] for folder in run["teachers"]}
    return {
        run["name"]
        for run in record["runs"]
        if run["method"]["kind"] == "ce" and run["work_dir"] in folders
    }


def group_by_row(record: Record) -> list[Group]:
    """Group the finished runs in cells by row.

    A grid is one group, at one alpha; the rest of a table has one for each row; a list is one
    group. A row that is cross-entropy alone joins all others.
    """
    kinds = {
        run["name"]: run["method"]["kind"]
        for run in record["runs"]
        if run["row"] and run["name"] in record["cells"]
    }
    groups = []
    for grid in find_grids(record):
        names = [n for (_, a), n in grid.names.items() if a == grid.shown and n in kinds]
        if names:
            groups.append((grid.title, names, [f"Of all α, that of {grid.shown:g}."]))
        kinds = {name: kind for name, kind in kinds.items() if name not in grid.names.values()}
    rows: dict[str, list[str]] = {}
    is_table = any(column for _, column in record["cells"].values())
    for name in kinds:
        rows.setdefault(record["cells"][name][0] if is_table else "", []).append(name)
    single = [row for row, (name, *more) in rows.items() if kinds[name] == "ce" and not more]
    if groups or len(single) < len(rows):
        shared = [name for row in single for name in rows.pop(row)]
        for names in [*rows.values(), *(names for _, names, _ in groups)]:
            names.extend(shared)
    groups += [(row or record["title"], names, []) for row, names in rows.items()]
    teachers = teachers_of_ce(record)
    return [Group(row, _methods(record, names, teachers), notes) for row, names, notes in groups]


def group_by_teacher(record: Record) -> list[Group]:
    """Group students by network, data and teacher, in and outside the table.

    The students of a group are by one loss between logits, those of a grid at one alpha.
    Those by cross-entropy of the same network on the same data join each group.
    """
    runs = record["runs"]
    by_folder = {run["work_dir"]: run for run in runs}
    data = _training_data(runs)
    students: dict[tuple, list[Run]] = {}
    hidden = {n for g in find_grids(record) for (_, a), n in g.names.items() if a != g.shown}
    for run in runs:
        if is_taught(run["method"]) and run["name"] not in hidden:
            names = [by_folder[f]["name"] if f in by_folder else f for f in run["teachers"]]
            teacher = tuple(names) or run["method"].get("teacher_config")
            key = run["method"].get("network"), data[run["name"]], teacher
            students.setdefault(key, []).append(run)
    groups = []
    for (network, place, _), taught in students.items():
        folders = {folder for run in taught for folder in run["teachers"]}
        teachers = {run["name"] for run in runs if run["work_dir"] in folders}
        names = [
            run["name"]
            for run in runs
            if run["method"]["kind"] == "ce"
            and (run["method"].get("network"), data[run["name"]]) == (network, place)
            and run["name"] not in teachers
        ]
        methods = _methods(record, dict.fromkeys([*names, *(run["name"] for run in taught)]))
        notes = [
            f"{m.name} did not finish with {m.failed} seed{'s' * (m.failed > 1)}"
            for m in methods
            if m.failed
        ]
        hows = [run["method"] for run in taught]
        alphas = sorted({how["alpha"] for how in hows if not how.get("weights")})
        notes += [f"α = {', '.join(f'{a:g}' for a in alphas)}"] if alphas not in ([], [1]) else []
        finished = [run for run in taught if run["row"]]
        if finished:
            groups.append(Group(_teacher_title(finished[0], by_folder), methods, notes))
    titles = Counter(group.title for group in groups)
    for group in groups:
        if titles[group.title] > 1:
            first = next(run for run in group.runs if is_taught(run["method"]))
            group.title += f" ({first['name']})"
        group.tag = group.title if len(groups) > 1 else ""
    return groups


def _training_data(runs: Sequence[Run]) -> dict[str, str | None]:
    """Identify the training data of runs, by name: label noise, or else the hash of the data.

    Noisy labels differ by seed. A run that never finished, whose hash is unknown, has that of the
    first one of its network.
    """
    found: dict[str, str | None] = {}
    networks: dict[str | None, str | None] = {}
    for run in sorted(runs, key=lambda run: not run["row"]):
        how = run["method"]
        data = ((run["row"] or {}).get("data") or {}).get("train")
        if how.get("label_noise"):
            data = json.dumps(how["label_noise"], sort_keys=True)
        elif run["row"]:
            networks.setdefault(how.get("network"), data)
        else:
            data = networks.get(how.get("network"))
        found.setdefault(run["name"], data)
    return found


def _teacher_title(run: Run, by_folder: Mapping[str, Run]) -> str:
    method = run["method"]
    teachers = [by_folder.get(folder) for folder in run["teachers"]]
    by = [network_name(t["method"].get("network")) for t in teachers if t and t["row"]]
    if not by or len(by) < len(teachers):
        config = str(method.get("teacher_config") or "its teacher")
        by = [config.rpartition("/")[2].removesuffix(".py")]
    title = f"{' + '.join(by)} → {network_name(method.get('network'))}"
    noise = method.get("label_noise")
    return f"{title}, {noise_name(noise)}" if noise else title


def network_name(network: str | None) -> str:
    """Return what papers call a network.

    Example:
        >>> network_name('WideResNetCIFAR depth=16 widen_factor=2')
        'WRN-16-2'
        >>> network_name('WideResNetCIFAR depth=10 widen_factor=1 base_channels=4')
        'WRN-10-1 (4 channels)'
        >>> network_name('ResNet depth=50')
        'ResNet-50'
    """
    kind, *words = (network or "a network").split(" ")
    sizes = dict(word.split("=", 1) for word in words if "=" in word)
    if kind == "WideResNetCIFAR" and {"depth", "widen_factor"} <= sizes.keys():
        thin = sizes.get("base_channels", "16")
        name = f"WRN-{sizes['depth']}-{sizes['widen_factor']}"
        return name if thin == "16" else f"{name} ({thin} channels)"
    if kind.startswith("ResNet") and "depth" in sizes:
        return f"{kind.replace('_', ' ')}-{sizes['depth']}"
    return network or "a network"
