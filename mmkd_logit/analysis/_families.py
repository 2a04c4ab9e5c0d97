"""Which runs of an exhibit belong in one picture: students of one network and one teacher."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .style import CE, Look, look_of, name_of

_TAUGHT = ("kl", "mse")


@dataclass
class Method:
    """The students by one method.

    Attributes:
        name: In legends.
        look: In pictures.
        runs: The finished ones, of an exhibit file, by seed.
    """

    name: str
    look: Look
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Family:
    """Students of one network, data and teacher, by several methods.

    Attributes:
        title: Who is taught by whom.
        tag: For names of files; empty where an exhibit has one family.
        methods: In the order of legends.
        teachers: Finished runs of the exhibit whose networks teach, by seed.
        notes: What is not there, in words.
    """

    title: str
    tag: str
    methods: list[Method]
    teachers: dict[int, list[dict[str, Any]]]
    notes: list[str]

    @property
    def seeds(self) -> list[int]:
        """All seeds, ascending."""
        return sorted({seed for method in self.methods for seed in method.runs})

    @property
    def epochs(self) -> list[int]:
        """Numbers of epochs that students were trained for, ascending."""
        runs = [run for method in self.methods for run in method.runs.values()]
        return sorted({run["epochs"] for run in runs if run.get("epochs") is not None})


def find_families(record: Mapping[str, Any]) -> list[Family]:
    """Sort the runs of an exhibit by network, data and teacher.

    Students by KL or MSE alone make a family, at the largest alpha that it has; those by
    cross-entropy of the same network on the same data join each. Other methods are left out.

    Args:
        record: Of an exhibit file.
    """
    runs = record["runs"]
    by_folder = {run["work_dir"]: run for run in runs}
    data = _data_of(runs)
    groups: dict[tuple, list[dict]] = {}
    for run in runs:
        if run["method"]["kind"] in _TAUGHT:
            key = run["method"].get("network"), data[run["name"]], _taught_by(run, by_folder)
            groups.setdefault(key, []).append(run)
    families = []
    for (network, place, _), taught in groups.items():
        alpha = max(run["method"].get("alpha") or 0 for run in taught)
        taught = [run for run in taught if (run["method"].get("alpha") or 0) == alpha]
        folders = {folder for run in taught for folder in run["teachers"]}
        plain = [
            run
            for run in runs
            if run["method"]["kind"] == "ce"
            and (run["method"].get("network"), data[run["name"]]) == (network, place)
            and run["work_dir"] not in folders
            and run["name"] not in {by_folder[f]["name"] for f in folders if f in by_folder}
        ]
        families.append(_family([*plain, *taught], by_folder, alpha))
    return _named([family for family in families if family.seeds])


def _data_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Number the names of runs by their training data.

    Names of which any runs saw the same samples are alike; noisy labels differ by the seed.
    A name without any finished run counts to the first one of its network and label noise.
    """
    group = {run["name"]: number for number, run in enumerate(runs)}
    seen: dict[str, str] = {}
    finished = [run for run in runs if run["row"]]
    for run in finished:
        key = json.dumps([_noise(run), (run["row"].get("data") or {}).get("train")])
        other = seen.setdefault(key, run["name"])
        old, new = group[run["name"]], group[other]
        group = {name: new if number == old else number for name, number in group.items()}
    names = {run["name"] for run in finished}
    for run in runs:
        alike = [
            other["name"]
            for other in finished
            if _noise(other) == _noise(run)
            and other["method"].get("network") == run["method"].get("network")
        ]
        if run["name"] not in names and alike:
            group[run["name"]] = group[alike[0]]
    return group


def _noise(run: Mapping[str, Any]) -> Any:
    return run["method"].get("label_noise")


def _taught_by(run: Mapping[str, Any], by_folder: Mapping[str, Mapping[str, Any]]) -> tuple:
    """Return what the teachers of a run are called with every seed."""
    names = [by_folder[f]["name"] if f in by_folder else f for f in run["teachers"]]
    return tuple(names or [run["method"].get("teacher_config")])


def _family(
    runs: Iterable[dict[str, Any]], by_folder: Mapping[str, dict[str, Any]], alpha: float
) -> Family:
    methods: dict[str, Method] = {}
    used: dict[str, str] = {}
    failed: dict[str, int] = {}
    teachers: dict[int, list[dict[str, Any]]] = {}
    noted: list[str] = []
    first: dict[str, Any] = {}
    for run in sorted(runs, key=lambda run: not run["row"]):
        name = name_of(run["method"])
        method = methods.setdefault(name, Method(name, look_of(run["method"])))
        if used.setdefault(name, run["name"]) != run["name"]:
            text = f"of several runs by {name} only {used[name]} is drawn"
            noted += [text] if run["row"] and text not in noted else []
            continue
        if not run["row"]:
            failed[name] = failed.get(name, 0) + 1
            continue
        method.runs[run["seed"]] = run
        taught = [by_folder[f] for f in run["teachers"] if f in by_folder]
        if run["method"]["kind"] in _TAUGHT:
            first = first or run
            if len(taught) == len(run["teachers"]) and all(each["row"] for each in taught):
                teachers.setdefault(run["seed"], taught)
    noted += [f"{n} did not finish with {c} seed{'s' * (c > 1)}" for n, c in failed.items()]
    noted += [f"α = {alpha:g}"] if alpha != 1 else []
    ordered = sorted(methods.values(), key=lambda method: method.look.order)
    title = _title(first, teachers) if first else ""
    return Family(title, "", ordered, teachers, noted)


def _title(run: Mapping[str, Any], teachers: Mapping[int, Sequence[Mapping[str, Any]]]) -> str:
    method = run["method"]
    taught = teachers.get(run["seed"])
    by = [network_name(t["method"].get("network")) for t in taught or ()]
    if not by:
        by = [str(method.get("teacher_config") or "its teacher").rpartition("/")[2]]
    title = f"{' + '.join(by).removesuffix('.py')} → {network_name(method.get('network'))}"
    noise = method.get("label_noise")
    if noise:
        rate = f" {100 * noise['rate']:g} %" if noise.get("rate") else ""
        title += f", {noise.get('kind')} label noise{rate}"
    return title


def _named(families: list[Family]) -> list[Family]:
    """Tell families of one title apart, and give their files names."""
    titles = [family.title for family in families]
    for family in families:
        if titles.count(family.title) > 1:
            taught = [m for m in family.methods if m.look != CE and m.runs]
            family.title += f" ({next(iter(taught[0].runs.values()))['name']})"
        if len(families) > 1:
            words = family.title.replace("→", "to").replace(" % ", " ")
            family.tag = re.sub(r"[^A-Za-z0-9.]+", "-", words).strip("-.").lower()
    return families


def network_name(network: str | None) -> str:
    """Return what papers call a network.

    Args:
        network: Its type and sizes, as an exhibit file has them.

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
