"""Samples with their logits, by families of runs."""

import json
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .curves import Ridge, common_range, draw_ridges, rounded, smooth_density, summarize
from .data import Dump, ExperimentFile, read_dump
from .style import CE, TEACHER, Drawing, Look, foot, is_taught, look_of, name_of, new_figure


@dataclass
class Method:
    """The students by one method.

    Attributes:
        name: In legends.
        look: In pictures.
        runs: The finished ones, of an experiment file, by seed.
    """

    name: str
    look: Look
    runs: dict[int, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Family:
    """Students of one network, data and teacher, by several methods.

    Attributes:
        title: Who is taught by whom.
        tag: For names of files; empty where an experiment has one family.
        methods: In the order of legends.
        teachers: Finished runs of the experiment whose networks teach, by seed.
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
    """Sort the runs of an experiment by network, data and teacher.

    Students by one loss between logits make a family, at the largest alpha that it has; those by
    cross-entropy of the same network on the same data join each. Other methods are left out.
    """
    runs = record["runs"]
    by_folder = {run["work_dir"]: run for run in runs}
    data = _data_of(runs)
    groups: dict[tuple, list[dict]] = {}
    for run in runs:
        if is_taught(run["method"]):
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
        if is_taught(run["method"]):
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


# The dumps of a family of students: read one at a time, checked, each beside its teacher's.


_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Teacher:
    """What the teacher of a seed says of the samples; what nobody dumped is None.

    Attributes:
        logits: (N, K).
        label: (N,).
        clean_label: (N,).
        index: (N,).
        prelogits: (N, D).
        weight: Of the last layer, (K, D).
    """

    logits: np.ndarray
    label: np.ndarray
    clean_label: np.ndarray
    index: np.ndarray
    prelogits: np.ndarray | None = None
    weight: np.ndarray | None = None


class Student(NamedTuple):
    """A student and what it was dumped with.

    Attributes:
        method: By which it was trained.
        seed: Its seed.
        dump: Its dump.
        teacher_logits: What the teacher says of the same samples, (N, K), or None.
    """

    method: Method
    seed: int
    dump: Dump
    teacher_logits: np.ndarray | None


class Samples:
    """A split of the data as a family of students and their teachers see it.

    Attributes:
        sources: The dumps that were read, as the experiment names them.
        sizes: Numbers of samples that students' dumps have.
    """

    def __init__(self, experiment: ExperimentFile, family: Family, split: str) -> None:
        self.experiment, self.family, self.split = experiment, family, split
        self.sources: list[str] = []
        self.sizes: set[int] = set()
        self._teacher: tuple[int, Teacher | None] | None = None

    @property
    def missing(self) -> list[str]:
        """Methods with finished runs, none of which has a dump."""
        has = {run["name"] for run in _runs(self.family) if self._path(run)}
        return [
            method.name
            for method in self.family.methods
            if method.runs and not has & {run["name"] for run in method.runs.values()}
        ]

    def students(self, seed: int | None = None) -> Iterator[Student]:
        """Give the students that have a dump, seed by seed in the order of legends."""
        for each in self.family.seeds if seed is None else [seed]:
            for method in self.family.methods:
                run = method.runs.get(each)
                dump = self._read(run) if run else None
                if dump is not None:
                    self.sizes.add(len(dump.index))
                    yield Student(method, each, dump, self._beside(dump, each))

    def teacher(self, seed: int) -> Teacher | None:
        """Return the teacher of a seed: from a student's dump, or from its own."""
        if self._teacher is None or self._teacher[0] != seed:
            self._teacher = None  # before another is read: they are large
            self._teacher = seed, self._find_teacher(seed)
        return self._teacher[1]

    def _find_teacher(self, seed: int) -> Teacher | None:
        found = None
        for run in self._taught(seed):
            dump = self._read(run)
            if dump is not None and dump.teacher_logits is not None:
                found = Teacher(
                    dump.teacher_logits,
                    dump.label,
                    dump.clean_label,
                    dump.index,
                    dump.teacher_prelogits,
                    dump.teacher_weight,
                )
                if found.prelogits is not None:
                    return found
                break
        own = self._own(seed)
        if own is None or (found is not None and not _same_samples(own, found)):
            return found
        return Teacher(own.logits, own.label, own.clean_label, own.index, own.prelogits, own.weight)

    def _taught(self, seed: int) -> list[dict[str, Any]]:
        runs = [method.runs[seed] for method in self.family.methods if seed in method.runs]
        return [run for run in runs if run["method"]["kind"] != "ce"]

    def _own(self, seed: int) -> Dump | None:
        """Return the dump of the run that made the teacher, unless it was trained anew since."""
        runs = self.family.teachers.get(seed, [])
        if len(runs) != 1:  # the mean of several is in no dump of theirs
            return None
        weights = runs[0]["row"].get("weights")
        known = [run["row"].get("teachers") for run in self._taught(seed)]
        if any(each is not None and list(each) != [weights] for each in known):
            return None
        return self._read(runs[0])

    def _beside(self, dump: Dump, seed: int) -> np.ndarray | None:
        if dump.teacher_logits is not None:
            return dump.teacher_logits
        teacher = self.teacher(seed)
        fits = teacher is not None and _same_samples(dump, teacher)
        return teacher.logits if teacher is not None and fits else None

    def _path(self, run: Mapping[str, Any]) -> str | None:
        return (run["files"].get("dumps") or {}).get(self.split)

    def _read(self, run: Mapping[str, Any]) -> Dump | None:
        path = self._path(run)
        if path is None:
            return None
        dump = read_dump(self.experiment.root / path)
        row = run["row"]
        for name, of in (("weights", "weights"), ("teachers", "teachers' weights")):
            said, trained = dump.identity.get(name), row.get(name)
            if trained is not None and said != trained and (said is not None or name == "weights"):
                raise ValueError(
                    f"the dump {path} is not of this run any more: its {of} are {_short(said)} "
                    f"and the run's {_short(trained)}; make it again with "
                    f"{self._command()}, or by tools/dump_logits.py"
                )
        if path not in self.sources:
            self.sources.append(path)
        return dump

    def _command(self) -> str:
        words = [str(word) for word in self.experiment.record["command"]]
        if "--dump-logits" not in words:
            words += ["--dump-logits", self.split]
        return shlex.join(words)


def _runs(family: Family) -> list[dict[str, Any]]:
    return [run for method in family.methods for run in method.runs.values()]


def _same_samples(first: Dump | Teacher, second: Dump | Teacher) -> bool:
    """Whether rows are of the same samples; the clean labels tell a data set that was changed."""
    return (
        first.logits.shape == second.logits.shape
        and np.array_equal(first.index, second.index)
        and np.array_equal(first.clean_label, second.clean_label)
    )


def _short(weights: Any) -> str:
    if isinstance(weights, (list, tuple)):
        return "[" + ", ".join(map(_short, weights)) + "]"
    return str(weights)[:12]


def dumped_splits(family: Family) -> list[str]:
    """List the splits that a student of a family was dumped on, training before test."""
    found = {split for run in _runs(family) for split in run["files"].get("dumps") or {}}
    return sorted(found, key=lambda s: (_SPLITS.index(s) if s in _SPLITS else len(_SPLITS), s))


def dumped_samples(experiment: ExperimentFile) -> list[list[Samples]]:
    """Return, for each family of students that has dumps, the splits they were dumped on."""
    families = [(family, dumped_splits(family)) for family in find_families(experiment.record)]
    return [
        [Samples(experiment, family, s) for s in splits] for family, splits in families if splits
    ]


# Numbers of each sample, by method and seed, and their densities one below the other.


Measure = Mapping[str, np.ndarray | None]


@dataclass
class Pooled:
    """A quantity of every sample under one method.

    Attributes:
        name: Of the method, or ``'teacher'``.
        look: Of it.
        by_seed: The values, (N,), by seed.
    """

    name: str
    look: Look
    by_seed: dict[int, np.ndarray] = field(default_factory=dict)

    @property
    def finite(self) -> np.ndarray:
        """Those of all seeds that are finite."""
        values = np.concatenate([np.empty(0), *self.by_seed.values()])
        return values[np.isfinite(values)]

    @property
    def not_finite(self) -> int:
        """How many are not."""
        return sum(int(len(v) - np.isfinite(v).sum()) for v in self.by_seed.values())

    def numbers(self) -> dict[str, Any]:
        """Return the statistics of all seeds and of each."""
        seeds = {seed: summarize(values) for seed, values in sorted(self.by_seed.items())}
        pooled = summarize(np.concatenate([np.empty(0), *self.by_seed.values()]))
        return dict(pooled=pooled, seeds=seeds)


def gather(
    samples: Samples,
    of_student: Callable[[Student], Measure],
    of_teacher: Callable[[Teacher], Measure],
) -> dict[str, list[Pooled]]:
    """Measure every sample of every dump, one dump at a time."""
    names = ["teacher", *(method.name for method in samples.family.methods)]
    looks = [TEACHER, *(method.look for method in samples.family.methods)]
    found: dict[str, dict[str, Pooled]] = {}

    def note(name: str, seed: int, measure: Measure) -> None:
        for quantity, values in measure.items():
            rows = found.setdefault(
                quantity, {n: Pooled(n, k) for n, k in zip(names, looks, strict=True)}
            )
            if values is not None:
                rows[name].by_seed[seed] = values

    for seed in samples.family.seeds:
        for student in samples.students(seed):
            note(student.method.name, seed, of_student(student))
        teacher = samples.teacher(seed)
        if teacher is not None:
            note("teacher", seed, of_teacher(teacher))
    return {quantity: list(rows.values()) for quantity, rows in found.items()}


def pooled_panels(
    rows: int, labels: Sequence[str], heads: Sequence[str] = ()
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels for :func:`draw_pooled` beside each other."""
    figure = new_figure(0.9 + 0.2 * bool(heads) + 0.42 * rows)
    panels = list(figure.subplots(1, len(labels), squeeze=False)[0])
    for axes, label in zip(panels, labels, strict=True):
        axes.set_xlabel(label)
    for axes, head in zip(panels, heads, strict=False):
        axes.set_title(head, loc="left")
    return figure, panels


def draw_pooled(
    axes: Axes,
    rows: Sequence[Pooled],
    names: bool = True,
    bins: int = 0,
    floor: float | None = None,
    empty: str = "not dumped",
    zero: bool = False,
) -> None:
    """Draw one quantity: a density or a histogram a row, with its median."""
    low, high = common_range([row.finite for row in rows], floor=floor)
    ridges = []
    for row in rows:
        values = row.finite
        if not len(values):
            ridges.append(Ridge(row.name, row.look))
            axes.annotate(
                "no finite value" if row.not_finite else empty,
                (0.02, -len(ridges) + 1.15), xycoords=("axes fraction", "data"),
                fontsize=7.5, color="#777777",
            )  # fmt: skip
            continue
        median = float(np.median(values))
        if bins:
            y, x = np.histogram(values, bins, (low, high))
        else:
            x, y = smooth_density(values, low, high, floor=floor)
        ridges.append(Ridge(row.name, row.look, x, y, median, rounded(median, high - low)))
    draw_ridges(axes, ridges, names, head="median")
    if zero:
        axes.axvline(0, color="#777777", linewidth=0.8, zorder=0)
    axes.set_xlim(low, high)


# What figures say of themselves: of how many samples and seeds, by which protocol, of what.


_SPLIT_NAMES = dict(train="training set", test="test set", val="validation set")


def split_name(split: str) -> str:
    """Return what a reader calls a split."""
    return _SPLIT_NAMES.get(split, f"split {split}")


def describe(
    samples: Sequence[Samples],
    figure: Figure,
    part: str,
    title: str,
    what: str,
    paper: str,
    seeds: Collection[int],
    numbers: Mapping[str, Any],
    notes: Iterable[str] = (),
    how: str = "",
) -> Drawing:
    """Put a picture of dumps together with what a reader needs to trust it."""
    family, record = samples[0].family, samples[0].experiment.record
    key = "/".join(filter(None, [record.get("scale"), record["name"]]))
    missing = list(dict.fromkeys(name for each in samples for name in each.missing))
    left_out = [*family.notes, *([f"not dumped: {', '.join(missing)}"] if missing else []), *notes]
    counted, protocol = _samples_text(samples), _protocol(family, seeds, how)
    foot(figure, f"{key} · {family.title} · {counted}; {protocol}")
    said = [what, counted, protocol, "; ".join(left_out)]
    facts = dict(
        networks=family.title,
        splits={each.split: sorted(each.sizes) for each in samples},
        seeds=sorted(seeds),
        epochs=family.epochs,
    )
    return Drawing(
        name="-".join(filter(None, [key.replace("/", "-"), part, family.tag])),
        title=f"{title}: {family.title}",
        caption=" ".join(f"{text[:1].upper()}{text[1:]}." for text in said if text),
        figure=figure,
        sources=list(dict.fromkeys(path for each in samples for path in each.sources)),
        paper=paper,
        experiment=key,
        numbers={**facts, **numbers},
    )


def describe_pooled(
    samples: Sequence[Samples],
    found: Mapping[str, Sequence[Pooled]],
    figure: Figure,
    part: str,
    title: str,
    what: str,
    paper: str,
    notes: Iterable[str] = (),
) -> Drawing:
    """Describe densities of all seeds' samples."""
    seeds = sorted({seed for rows in found.values() for row in rows for seed in row.by_seed})
    fewer, strange = dict[str, int](), dict[str, int]()
    for rows in found.values():
        for row in rows:
            if 0 < len(row.by_seed) < len(seeds):
                fewer[row.name] = len(row.by_seed)
            if row.not_finite:
                strange[row.name] = row.not_finite
    texts = [f"{name} has {count} of these seeds" for name, count in fewer.items()]
    texts += [f"{count:,} values by {name} are not finite" for name, count in strange.items()]
    numbers = {
        quantity: {row.name: row.numbers() for row in rows if row.by_seed}
        for quantity, rows in found.items()
    }
    return describe(
        samples, figure, part, title, what, paper, seeds, numbers, [*texts, *notes], ", pooled"
    )


def _protocol(family: Family, seeds: Collection[int], how: str) -> str:
    listed = ", ".join(map(str, sorted(seeds)))
    text = f"seed {listed}" if len(seeds) == 1 else f"{len(seeds)} seeds ({listed}){how}"
    epochs = family.epochs
    if epochs:
        text += f"; {epochs[0]}" + (f" to {epochs[-1]}" if len(epochs) > 1 else "") + " epochs"
    return f"{text}; last epoch, nothing selected"


def _samples_text(samples: Sequence[Samples]) -> str:
    texts = []
    for each in samples:
        sizes = sorted(each.sizes)
        many = f"{sizes[0]:,}" + (f" to {sizes[-1]:,}" if len(sizes) > 1 else "")
        texts.append(f"{split_name(each.split)}, n = {many} samples without augmentation")
    return "; ".join(texts)
