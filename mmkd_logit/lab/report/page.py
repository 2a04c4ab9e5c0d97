"""``tools/report.py``: one page with every table and figure of a folder of results."""

import base64
import functools
import hashlib
import json
import math
import os
import shlex
from collections.abc import Iterable, Mapping
from importlib.resources import files as resources
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
from markupsafe import Markup

from mmkd_logit.utils.arguments import check_out_file
from mmkd_logit.utils.files import write_text

from .data import ROWS, Experiment, Results, read_results
from .figures import FIGURES
from .page_figures import Files, Names, draw_page_figures

_KINDS = {"ce": "cross-entropy", "kl": "KL", "mse": "MSE between logits"}
_DEFAULT_METRIC = dict(title="test top-1 (%)", key="test.accuracy/top1", cells={})


def describe_method(method: Mapping[str, Any]) -> str:
    """Return in a line how a run was trained."""
    what = _KINDS.get(method["kind"]) or method.get("label") or method.get("loss")
    what = what or "several losses"
    for key, sign in dict(tau="τ", alpha="α").items():
        value = method.get(key)
        if method["kind"] != "ce" and value is not None:
            what += f", {sign} = {'∞' if value == 'inf' else f'{float(value):g}'}"
    parts = [method.get("network"), what]
    if method.get("teacher_config"):
        parts.append(f"teacher {method['teacher_config']}")
    noise = method.get("label_noise")
    if noise:
        rate = f" {noise['rate']:g}" if noise.get("rate") else ""
        parts.append(f"{noise.get('kind')} label noise{rate}")
    return " · ".join(filter(None, parts))


def run_facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List what is known of a run."""
    row = run["row"] or {}
    epochs = [run["epochs"]] if run["epochs"] is not None else []
    epochs += [f"{row['iterations']} iterations"] if row.get("iterations") is not None else []
    epochs += [f"resumed at {row['resumed_at']}"] if row.get("resumed_at") else []
    training = duration(row["train_seconds"]) if row.get("train_seconds") is not None else ""
    training += f", {row['together']} runs together" if (row.get("together") or 1) > 1 else ""
    changed = ", with files changed" if row.get("commit") and row.get("dirty") else ""
    facts: list[tuple[str, Any]] = [
        ("config", run["config"]),
        ("fingerprint", row.get("fingerprint")),
        ("work folder", run["work_dir"]),
        ("own seed", row.get("seed") if row.get("seed") != run["seed"] else None),
        ("epochs", ", ".join(map(str, epochs))),
        ("taught by", ", ".join(run["teachers"])),
        ("teachers' weights", ", ".join(filter(None, row.get("teachers") or []))),
        ("weights", row.get("weights")),
        ("data", ", ".join(f"{key} {v}" for key, v in (row.get("data") or {}).items())),
        ("numerics", row.get("numerics")),
        ("device", row.get("device")),
        ("processes", row.get("processes") if row.get("processes") != 1 else None),
        ("training", training),
        ("commit", f"{row.get('commit') or ''}{changed}"),
        ("versions", ", ".join(f"{key} {v}" for key, v in (row.get("versions") or {}).items())),
        ("finished", row.get("finished")),
        ("results row", f"{ROWS}, line {run['line']}" if run["row"] else None),
    ]
    return [(term, str(value)) for term, value in facts if value not in (None, "")]


def duration(seconds: float) -> str:
    """Return a time in the unit that fits it."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:,.1f} h"


def format_number(value: float | None, signed: bool = False) -> str:
    """Return a number as tables show it; nothing for None."""
    if value is None:
        return ""
    size = ".2f" if not math.isfinite(value) or abs(value) < 1e6 else ".4g"
    return f"{value:{'+' if signed else ''}{size}}".replace("-", "−")


def plural(count: int, what: str) -> str:
    """Return a number of things."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def arrows(text: str | None) -> str:
    """Write arrows as one sign, which no line breaks in."""
    return (text or "").replace("->", "→")


def _span(values: Iterable[Any], between: str) -> str:
    found = sorted(set(values))
    return between.join(str(each) for each in dict.fromkeys([*found[:1], *found[-1:]]))


class ExperimentView:
    """Turns an experiment into a section of the page."""

    def __init__(self, experiment: Experiment, files: Files, names: Names) -> None:
        self.experiment, self.files = experiment, files
        self.record = experiment.record
        self.id = names("-".join(["experiment", *experiment.key.split("/")]))
        runs = dict.fromkeys(run["name"] for run in self.record["runs"])
        self.places = {name: names(f"{self.id}-{name}") for name in runs}

    def section(self) -> dict[str, Any]:
        """Return the section, without its figures."""
        record, runs, path = self.record, self.record["runs"], self.experiment.path
        failed = sum(not run["row"] for run in runs)
        tables = [path, path.with_suffix(".csv"), self.files.results / ROWS]
        return dict(
            id=self.id,
            record=record,
            counts=plural(len(runs), "run") + (f", {failed} failed" if failed else ""),
            finished=len(runs) - failed,
            failed=failed,
            seeds=len({run["seed"] for run in runs}),
            epochs=_span((run["epochs"] for run in runs if run["row"]), "–"),
            tables=[self._table(metric) for metric in record["metrics"]],
            sources=self.files.describe(
                [os.path.relpath(each, self.files.results) for each in tables if each.is_file()],
                self.files.results,
            ),
            gaps=self._gaps(failed),
            groups=[self._group(name) for name in self.places],
        )

    def _table(self, metric: Mapping[str, Any]) -> dict[str, Any]:
        rows: dict[str, dict[str, dict]] = {}
        for name, cell in metric["cells"].items():
            std = "" if cell["std"] is None else f"± {format_number(cell['std'])} "
            shown = dict(spread=f"{std}({cell['n']})", target=self.places.get(name, self.id))
            row, column = self.record["cells"][name]
            rows.setdefault(row, {})[column] = {**cell, **shown}
        cells = [cell for row in rows.values() for cell in row.values()]
        columns = dict.fromkeys(self.record["cells"][name][1] for name in metric["cells"])
        return dict(
            title=metric["title"],
            matrix=any(columns),
            width=min(16, max([3, *(len(cell["spread"]) for cell in cells)])),
            columns=list(columns),
            with_paper=any(cell["paper"] is not None for cell in cells),
            rows=rows,
            comparisons=[pair["text"] for pair in metric.get("comparisons") or []],
        )

    def _group(self, name: str) -> dict[str, Any]:
        """Return the runs of a cell."""
        runs = [run for run in self.record["runs"] if run["name"] == name]
        metrics = [m for m in self.record["metrics"] if name in m["cells"]] or [_DEFAULT_METRIC]
        label = arrows(", ".join(filter(None, self.record["cells"].get(name, []))))
        return dict(
            id=self.places[name],
            label=label or f"{name} (no cell of its own)",
            titles=[metric["title"] for metric in metrics],
            failed=sum(not run["row"] for run in runs),
            method=describe_method(runs[0]["method"]),
            runs=[
                dict(
                    run,
                    numbers=[_measured(run, metric) for metric in metrics],
                    links=self._links(run["files"]),
                    facts=run_facts(run),
                    text=json.dumps(run["row"], indent=1, sort_keys=True) if run["row"] else "",
                )
                for run in runs
            ],
        )

    def _links(self, found: Mapping[str, Any]) -> list[dict[str, Any]]:
        paths = [("log", found["log"])] if found.get("log") else []
        scalars = found.get("scalars") or []
        labels = [
            f"scalars {i}" if len(scalars) > 1 else "scalars" for i, _ in enumerate(scalars, 1)
        ]
        paths += zip(labels, scalars, strict=True)
        paths += [(f"logits {split}", path) for split, path in (found.get("dumps") or {}).items()]
        return [self.files.link(label, path, self.experiment.root) for label, path in paths]

    def _gaps(self, failed: int) -> list[dict[str, Any]]:
        """Say what is missing, and which command makes it."""
        command = self.record["command"]
        runs = [run for run in self.record["runs"] if run["row"]]
        gaps = []
        if failed:
            text = f"{failed} of {plural(len(self.record['runs']), 'run')} failed. What failed is"
            gaps.append(dict(text=f"{text} tried again by", command=command))
        count = sum(not run["files"].get("dumps") for run in runs)
        if count:
            text = f"{count} of {plural(len(runs), 'finished run')} kept no logits, which some"
            text += " figures need. They are written by"
            dump = [] if "--dump-logits" in command else ["--dump-logits"]
            gaps.append(dict(text=text, command=[*command, *dump]))
        silent = [run for run in runs if not run["files"].get("scalars")]
        if silent:
            text = f"{len(silent)} of {plural(len(runs), 'finished run')} left no scalars, which"
            text += " curves of training need. They come with training, such as"
            gaps.append(dict(text=text, command=silent[0]["command"]))
        return gaps


def _measured(run: Mapping[str, Any], metric: Mapping[str, Any]) -> float | None:
    """Return a run's number: what its cell was given, or what its row holds."""
    cell = metric["cells"].get(run["name"])
    if cell is not None:
        return cell["by_seed"].get(str(run["seed"]))
    split, _, key = metric["key"].partition(".")
    return ((run["row"] or {}).get(split) or {}).get(key)


def build_report(
    results: str | Path,
    out: str | Path | None = None,
    root: str | Path | None = None,
    figures: Mapping[str, ModuleType] = FIGURES,
) -> tuple[Path, list[str]]:
    """Write the page, and the figures beside the results.

    The page is one file that fetches nothing. Figures that cannot be drawn are named on it.

    Args:
        results: The folder of results.
        out: The page; ``RESULTS/report.html`` by default.
        root: The folder that has the runs' files, if they were moved.
        figures: The figures by name.
    """
    found = read_results(results, root)
    out = Path(results, "report.html") if out is None else Path(out)
    check_out_file("the page", out)
    files, names = Files(out.parent, found.folder), Names()
    for name in ("main", "overview", "figures", "others"):
        names(name)
    sections = [ExperimentView(each, files, names).section() for each in found.experiments]
    drawn = draw_page_figures(found.experiments, figures, files, names)
    for section, experiment in zip(sections, found.experiments, strict=True):
        section["figures"] = drawn.shown[experiment.key]
        section["missing"] = drawn.missing[experiment.key]
    problems = [*found.problems, *_lost(found, files)]
    if drawn.unwritten:
        problems.append(f"The figures are on the page alone: {drawn.unwritten}")
    missing = sum(map(len, drawn.missing.values()))
    if missing:
        what = plural(missing, "figure")
        problems.append(f"{what} could not be drawn; the page says at its experiment why.")
    used = {run["line"] for each in found.experiments for run in each.record["runs"]}
    page = dict(
        title="Distilling logits: what was measured",
        subtitle=f"Made from the files in {found.folder.resolve().name}/",
        problems=problems,
        facts=_facts(found),
        experiments=sections,
        figures=drawn.shown[None],
        missing=drawn.missing[None],
        others={line: row for line, row in found.rows.items() if line not in used},
        rows=files.describe([ROWS], files.results)[0],
    )
    # A name of a file may hold bytes that are no text.
    write_text(out, render_page(page), errors="backslashreplace")
    return out, problems


def _lost(found: Results, files: Files) -> list[str]:
    """Say how many runs' files are not where they were, as after a move."""
    lost = 0
    for experiment in found.experiments:
        for made in (run["files"] for run in experiment.record["runs"]):
            paths = [made.get("log"), *(made.get("scalars") or [])]
            paths = [*filter(None, paths), *(made.get("dumps") or {}).values()]
            lost += bool(paths) and not any(files.exists(path, experiment.root) for path in paths)
    if not lost:
        return []
    return [f"The files of {plural(lost, 'run')} are gone; if they were moved, --root says where."]


def _facts(found: Results) -> list[tuple[str, str]]:
    """Say what was run, by whom and for how long, each run once."""
    records = [experiment.record for experiment in found.experiments]
    runs = {run["work_dir"]: run["row"] for record in records for run in record["runs"]}
    rows = [row for row in runs.values() if row]
    failed = f", {len(runs) - len(rows)} failed" if len(rows) < len(runs) else ""
    # Runs together were timed together.
    seconds = sum(
        (row.get("train_seconds") or 0) / max(1, row.get("together") or 1) for row in rows
    )
    commits = [
        str(row.get("commit") or "unknown")[:12]
        + (" with files changed" if row.get("dirty") else "")
        for row in rows
    ]
    versions = [f"{name} {v}" for row in rows for name, v in (row.get("versions") or {}).items()]
    facts = [
        ("runs", f"{len(rows)} of {len(runs)} finished{failed}"),
        ("training", duration(seconds) if rows else ""),
        ("devices", _join(row.get("device") for row in rows)),
        ("numerics", _join(row.get("numerics") for row in rows)),
        ("commits", _join(commits)),
        ("versions", _join(versions)),
        ("finished", _span(filter(None, (row.get("finished") for row in rows)), " to ")),
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
    environment.filters.update(
        number=format_number,
        arrows=arrows,
        plural=plural,
        quote=shlex.quote,
        isfinite=math.isfinite,
    )
    return environment.from_string(page), style, script


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
