"""``tools/report.py``: one page with every table and figure of a folder."""

import argparse
import base64
import functools
import hashlib
import json
import math
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from mmkd_logit.utils.arguments import check_out_file
from mmkd_logit.utils.cli import OneLineParser
from mmkd_logit.utils.files import write_text

from .data import ExperimentFile, read_experiment_files
from .page_figures import Draw, Files, Names, show_figures

_KINDS = {"ce": "cross-entropy", "kl": "KL", "mse": "MSE between logits"}


def describe_method(method: Mapping[str, Any]) -> str:
    """Say in a line by what a run was trained."""
    known = _KINDS.get(method["kind"]) or method.get("label") or method.get("loss")
    what = known or "several losses"
    sizes = dict(tau="τ", alpha="α")
    if method["kind"] != "ce":
        told = [f"{s} = {_size(method[k])}" for k, s in sizes.items() if method.get(k) is not None]
        what = ", ".join([what, *told])
    parts = [method.get("network"), what]
    if method.get("teacher_config"):
        parts.append(f"teacher {method['teacher_config']}")
    noise = method.get("label_noise")
    if noise:
        rate = noise.get("rate")
        parts.append(f"{noise.get('kind')} label noise" + (f" {rate:g}" if rate else ""))
    return " · ".join(filter(None, parts))


def _size(value: Any) -> str:
    if isinstance(value, str):
        return "∞" if value == "inf" else value
    return f"{value:g}"


def run_facts(run: Mapping[str, Any], place: str | None = None) -> list[tuple[str, str]]:
    """List what is known of a run, in words."""
    row = run["row"] or {}
    facts: list[tuple[str, Any]] = [
        ("config", run["config"]),
        ("fingerprint", row.get("fingerprint")),
        ("work folder", run["work_dir"]),
        ("own seed", row["seed"] if row.get("seed") not in (None, run["seed"]) else None),
        ("epochs", _epochs(run, row)),
        ("taught by", ", ".join(run.get("teachers") or [])),
        ("teachers' weights", ", ".join(filter(None, row.get("teachers") or []))),
        ("weights", row.get("weights")),
        ("data", _pairs(row.get("data"))),
        ("numerics", row.get("numerics")),
        ("device", row.get("device")),
        ("processes", row["processes"] if row.get("processes") not in (None, 1) else None),
        ("training", _seconds(row)),
        ("commit", _commit(row)),
        ("versions", _pairs(row.get("versions"))),
        ("finished", row.get("finished")),
        ("results row", place),
    ]
    return [(term, str(value)) for term, value in facts if value not in (None, "")]


def _epochs(run: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    told = [str(run["epochs"])] if run.get("epochs") is not None else []
    told += [f"{row['iterations']} iterations"] if row.get("iterations") is not None else []
    told += [f"resumed at {row['resumed_at']}"] if row.get("resumed_at") else []
    return ", ".join(told)


def _pairs(values: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{key} {value}" for key, value in (values or {}).items())


def _commit(row: Mapping[str, Any]) -> str:
    if not row.get("commit"):
        return ""
    return f"{row['commit']}{', with files changed' if row.get('dirty') else ''}"


def _seconds(row: Mapping[str, Any]) -> str:
    if row.get("train_seconds") is None:
        return ""
    together = f", {row['together']} runs together" if (row.get("together") or 1) > 1 else ""
    return f"{duration(row['train_seconds'])}{together}"


def duration(seconds: float) -> str:
    """Return a time in the units that fit it."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:,.1f} h"


def format_number(value: Any, signed: bool = False) -> str:
    """Return a number as tables show it; nothing for what is none."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return ""
    try:
        size = ".2f" if not math.isfinite(value) or abs(value) < 1e6 else ".4g"
        return f"{float(value):{'+' if signed else ''}{size}}".replace("-", "−")
    except OverflowError:  # a whole number that no float holds
        return ""


# The results rows of a folder: on which line a run's stands, and those that no experiment has.


NAME = "runs.jsonl"


class ResultsRows:
    """Knows the lines of ``RESULTS/runs.jsonl``."""

    def __init__(self, results: Path) -> None:
        self.path = results / NAME
        self.rows: dict[int, dict[str, Any]] = {}
        self.problems: list[str] = []
        self._numbers: dict[str, int] = {}
        if self.path.is_file():
            self._read()

    def _read(self) -> None:
        lines = self.path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                self.rows[number] = row
                self._numbers[_text(row)] = number
            elif line.strip() and number < len(lines):  # the last may be under way
                self.problems.append(f"{NAME}: line {number} is not a results row; remove it")

    def place(self, row: Mapping[str, Any] | None) -> str | None:
        """Say where a run's row stands, or None where there is nothing to say."""
        if not row or not self.rows:
            return None
        number = self._numbers.get(_text(row))
        return f"not in {NAME}" if number is None else f"{NAME}, line {number}"

    def others(self, records: Iterable[Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
        """Return the rows that no run of some experiments has, as the template takes them."""
        used = {_text(run["row"]) for record in records for run in record["runs"] if run["row"]}
        rows = ((number, row) for number, row in self.rows.items() if _text(row) not in used)
        return [
            dict(
                line=number,
                what=_settings(row),
                seed=row.get("seed", ""),
                epochs=row.get("epochs", ""),
                top1=format_number(_inner(row, "test").get("accuracy/top1")),
                finished=row.get("finished", ""),
            )
            for number, row in rows
        ]

    def describe(self, files: Files) -> dict[str, Any]:
        """Return path, link and SHA-256 of the file."""
        (described,) = files.describe([self.path.name], files.results)
        return described


def _text(row: Mapping[str, Any]) -> str:
    return json.dumps(row, sort_keys=True)


def _inner(row: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = row.get(field)
    return value if isinstance(value, dict) else {}


def _settings(row: Mapping[str, Any]) -> str:
    options = [f"{key}={value}" for key, value in _inner(row, "overrides").items()]
    numerics = row.get("numerics")
    told = [str(numerics)] if numerics not in (None, "float32") else []
    return " ".join([str(row.get("config", "")), *options, *told])


# What a report says of one experiment, as plain values for its template.


DEFAULT_METRIC = dict(title="test top-1 (%)", key="test.accuracy/top1", cells={}, comparisons=[])


def quoted(words: Sequence[str]) -> list[str]:
    """Return a command's words as a shell takes them."""
    return [shlex.quote(word) for word in words]


def plural(count: int, what: str) -> str:
    """Return a number of things."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def arrows(text: str | None) -> str:
    """Write arrows as one sign, which no line breaks in."""
    return (text or "").replace("->", "→")


def _spread(cell: Mapping[str, Any]) -> str:
    std = "" if cell["std"] is None else f"± {format_number(cell['std'])} "
    return f"{std}({cell['n']})"


class ExperimentView:
    """Turns an experiment file into a section of the page."""

    def __init__(
        self, experiment: ExperimentFile, files: Files, names: Names, rows: ResultsRows
    ) -> None:
        self.path, self.root, self.record = experiment
        self.files, self.names, self.rows = files, names, rows
        self.id = names("-".join(["experiment", *experiment.key.split("/")]))
        self.places: dict[str, str] = {}
        for run in self.record["runs"]:
            if run["name"] not in self.places:
                self.places[run["name"]] = names(f"{self.id}-{run['name']}")

    def section(self) -> dict[str, Any]:
        """Return the whole section, but for its figures."""
        record, runs = self.record, self.record["runs"]
        finished = [run for run in runs if run["row"]]
        failed = len(runs) - len(finished)
        epochs = sorted({run["epochs"] for run in finished if run["epochs"] is not None})
        return dict(
            id=self.id,
            title=arrows(record["title"]),
            scale=record.get("scale"),
            note=arrows(record.get("note")),
            protocol=record.get("protocol"),
            command=quoted(record["command"]),
            legend=list((record.get("legend") or {}).items()),
            counts=plural(len(runs), "run") + (f", {failed} failed" if failed else ""),
            finished=len(finished),
            failed=failed,
            seeds=len({run["seed"] for run in runs}),
            epochs="–".join(str(each) for each in dict.fromkeys([*epochs[:1], *epochs[-1:]])),
            tables=[self._table(metric) for metric in record["metrics"]],
            sources=self._sources(),
            figures=[],
            missing=[],
            gaps=self._gaps(failed),
            groups=[self._group(name) for name in self.places],
        )

    def _sources(self) -> list[dict[str, Any]]:
        """Describe the files of the tables, by their names in the folder of results."""
        paths = [self.path, self.path.with_suffix(".csv"), self.rows.path]
        names = [path.relative_to(self.rows.path.parent) for path in paths if path.is_file()]
        return self.files.describe(names, self.files.results)

    def _table(self, metric: Mapping[str, Any]) -> dict[str, Any]:
        places = self.record["cells"]
        cells = {name: self._cell(name, cell) for name, cell in metric["cells"].items()}
        columns = list(dict.fromkeys(places[name][1] for name in cells))
        grid: dict[str, dict[str, dict]] = {}
        for name, cell in cells.items():
            row, column = places[name]
            grid.setdefault(row, {})[column] = cell
        return dict(
            title=metric["title"],
            matrix=any(columns),
            width=min(16, max([3, *(len(cell["spread"]) for cell in cells.values())])),
            columns=[arrows(column) for column in columns],
            with_paper=any(cell["paper"] for cell in cells.values()),
            rows=[
                dict(label=arrows(label), cells=[line.get(column) for column in columns])
                for label, line in grid.items()
            ],
            comparisons=[arrows(pair["text"]) for pair in metric.get("comparisons") or []],
        )

    def _cell(self, name: str, cell: Mapping[str, Any]) -> dict[str, Any]:
        mean = cell["mean"]
        return dict(
            mean=format_number(mean),
            spread=_spread(cell),
            failed=cell["failed"],
            paper=format_number(cell["paper"]),
            mark=cell["mark"],
            meaning=(self.record.get("legend") or {}).get(cell["mark"], ""),
            difference=format_number(cell["difference"], signed=True),
            value="" if mean is None or not math.isfinite(mean) else repr(float(mean)),
            target=self.places.get(name, self.id),
        )

    def _group(self, name: str) -> dict[str, Any]:
        runs = [run for run in self.record["runs"] if run["name"] == name]
        metrics = [m for m in self.record["metrics"] if name in m["cells"]] or [DEFAULT_METRIC]
        label = arrows(", ".join(filter(None, self.record["cells"].get(name, []))))
        return dict(
            id=self.places[name],
            label=label or f"{name} (no cell of its own)",
            titles=[metric["title"] for metric in metrics],
            failed=sum(not run["row"] for run in runs),
            method=describe_method(runs[0]["method"]),
            runs=[self._run(run, metrics) for run in runs],
        )

    def _run(self, run: Mapping[str, Any], metrics: list) -> dict[str, Any]:
        row = run["row"]
        return dict(
            seed=run["seed"],
            failed=not row,
            command=quoted(run["command"]),
            weights=(row or {}).get("weights") or "",
            numbers=[_measured(run, metric) for metric in metrics],
            files=self._links(run["files"]),
            facts=run_facts(run, self.rows.place(row)),
            row=json.dumps(row, indent=1, sort_keys=True) if row else "",
        )

    def _links(self, found: Mapping[str, Any]) -> list[dict[str, Any]]:
        links = self.files.link("log", found.get("log"), self.root)
        scalars = found.get("scalars") or []
        for position, path in enumerate(scalars, 1):
            label = f"scalars {position}" if len(scalars) > 1 else "scalars"
            links += self.files.link(label, path, self.root)
        for split, path in (found.get("dumps") or {}).items():
            links += self.files.link(f"logits {split}", path, self.root)
        return links

    def _gaps(self, failed: int) -> list[dict[str, Any]]:
        """Say what is missing, and which command makes it."""
        words = self.record["command"]
        runs = [run for run in self.record["runs"] if run["row"]]
        gaps = []
        if failed:
            what = f"{failed} of {plural(len(self.record['runs']), 'run')} failed."
            gaps.append(dict(text=f"{what} What failed is tried again by", command=quoted(words)))
        bare = [run for run in runs if not run["files"].get("dumps")]
        if bare:
            what = f"{len(bare)} of {plural(len(runs), 'finished run')} kept no logits, which some"
            dump = words if "--dump-logits" in words else [*words, "--dump-logits"]
            text = f"{what} figures need. They are written by"
            gaps.append(dict(text=text, command=quoted(dump)))
        silent = [run for run in runs if not run["files"].get("scalars")]
        if silent:
            what = f"{len(silent)} of {plural(len(runs), 'finished run')} left no scalars, which"
            text = f"{what} curves of training need. They come with training, such as"
            gaps.append(dict(text=text, command=quoted(silent[0]["command"])))
        return gaps


def _measured(run: Mapping[str, Any], metric: Mapping[str, Any]) -> str:
    """Return a run's own number: what its cell was given, or what its row holds."""
    cell = metric["cells"].get(run["name"])
    if cell is not None:
        return format_number(cell["by_seed"].get(str(run["seed"])))
    split, _, key = metric["key"].partition(".")
    return format_number(((run["row"] or {}).get(split) or {}).get(key))


# ``tools/report.py``: one page with every table and figure of a folder of results.


def build_report(
    results: str | Path,
    out: str | Path | None = None,
    root: str | Path | None = None,
    draw: Draw | None = None,
) -> tuple[Path, list[str]]:
    """Write the page, and the figures beside the results.

    It is one file that fetches nothing. Figures that cannot be drawn are told on the page.
    """
    experiments = read_experiment_files(results, root)
    out = Path(results, "report.html") if out is None else Path(out)
    check_out_file("the page", out)
    files, names = Files(out.parent, Path(results)), Names()
    for name in ("main", "overview", "figures", "others"):
        names(name)
    rows = ResultsRows(Path(results))
    sections = {e.key: ExperimentView(e, files, names, rows).section() for e in experiments}
    figures = show_figures(experiments, draw, files, names)
    across: dict[str, list] = dict(figures=[], missing=[])
    for key, figure in figures.shown:
        (sections[key] if key else across)["figures"].append(figure)
    for key, text in figures.missing:
        (sections[key] if key else across)["missing"].append(text)
    problems = [*rows.problems, *_lost(experiments, files), *filter(None, [figures.problem])]
    if figures.missing:
        what = plural(len(figures.missing), "figure")
        problems.append(f"{what} could not be drawn; the page says at its experiment why.")
    records = [experiment.record for experiment in experiments]
    page = dict(
        across,
        title="Distilling logits: what was measured",
        subtitle=f"Made from the files in {Path(results).resolve().name}/",
        problems=problems,
        facts=_facts(records),
        experiments=list(sections.values()),
        others=rows.others(records),
        rows=rows.describe(files),
    )
    # A name of a file may hold bytes that are no text.
    write_text(out, render_page(page), errors="backslashreplace")
    return out, problems


def _lost(experiments: Sequence[ExperimentFile], files: Files) -> list[str]:
    """Say how many runs' files are not where they were, as after a move."""
    lost = 0
    for experiment in experiments:
        for found in (run["files"] for run in experiment.record["runs"]):
            dumps = (found.get("dumps") or {}).values()
            paths = [*filter(None, [found.get("log")]), *(found.get("scalars") or []), *dumps]
            lost += bool(paths) and not any(files.exists(path, experiment.root) for path in paths)
    if not lost:
        return []
    return [f"The files of {plural(lost, 'run')} are gone; if they were moved, --root says where."]


def _facts(records: Sequence[dict]) -> list[tuple[str, str]]:
    """Say what was run, by whom and for how long, each run once."""
    runs = {run["work_dir"]: run["row"] for record in records for run in record["runs"]}
    rows = [row for row in runs.values() if row]
    failed = len(runs) - len(rows)
    versions = {f"{name} {v}" for row in rows for name, v in (row.get("versions") or {}).items()}
    commits = {
        str(row.get("commit") or "unknown")[:12]
        + (" with files changed" if row.get("dirty") else "")
        for row in rows
    }
    # Runs together were timed together.
    seconds = sum(
        (row.get("train_seconds") or 0) / max(1, row.get("together") or 1) for row in rows
    )
    times = sorted(filter(None, (row.get("finished") for row in rows)))
    facts = [
        ("runs", f"{len(rows)} of {len(runs)} finished" + (f", {failed} failed" if failed else "")),
        ("training", duration(seconds) if rows else ""),
        ("devices", _join(row.get("device") for row in rows)),
        ("numerics", _join(row.get("numerics") for row in rows)),
        ("commits", _join(commits)),
        ("versions", _join(versions)),
        ("finished", " to ".join(dict.fromkeys([*times[:1], *times[-1:]]))),
    ]
    return [fact for fact in facts if fact[1]]


def _join(values: Iterable[Any]) -> str:
    return ", ".join(sorted({str(value) for value in values if value}))


def render_page(page: dict[str, Any]) -> str:
    """Render the page.

    Its policy lets nothing be fetched and only its own style and script be used, whatever
    labels, commands and paths may hold.
    """
    template, style, script = _template()
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}"
    )
    texts = dict(style=Markup(style), script=Markup(script))
    return template.render(page=page, policy=policy, **texts).lstrip()


@functools.cache
def _template() -> tuple[jinja2.Template, str, str]:
    folder = resources(__package__)
    page, style, script = (
        folder.joinpath(f"report.{kind}").read_text("utf-8") for kind in ("html.j2", "css", "js")
    )
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.from_string(page), style, script


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/report.py``."""
    parser = OneLineParser(
        description="Write one HTML file with every table and figure of a folder of results"
    )
    parser.add_argument("results", help="the folder that tools/reproduce.py wrote to")
    parser.add_argument("--out", metavar="FILE", help="the page; default: RESULTS/report.html")
    parser.add_argument("--root", metavar="FOLDER", help="where the runs' files lie, if moved")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/report.py``."""
    args = build_parser().parse_args(argv)
    try:
        path, problems = build_report(args.results, args.out, args.root)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
    for problem in problems:
        print(problem, file=sys.stderr)
    print(path)
