"""``tools/report.py``: one page with every table and figure of a folder of results."""

import base64
import functools
import hashlib
import json
import math
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
from markupsafe import Markup

from mmkd_logit.utils.arguments import check_out_file
from mmkd_logit.utils.files import write_text

from .data import DEFAULT_METRIC, ROWS, Experiment, read_results
from .figures import FIGURES
from .page_figures import Files, Names, embed, render_figures
from .style import name_of, noise_name


def describe_method(method: Mapping[str, Any]) -> str:
    """Return in a line how a run was trained."""
    what = name_of(method)
    if method.get("weights"):
        what += ", {kd:g} times it and {ce:g} times CE".format(**method["weights"])
    elif method["kind"] != "ce" and method.get("alpha") is not None:
        what += f", α = {method['alpha']:g}"
    teacher, noise = method.get("teacher_config"), method.get("label_noise")
    parts = [method.get("network"), what, teacher and f"teacher {teacher}"]
    return " · ".join(filter(None, [*parts, noise and noise_name(noise)]))


def duration(seconds: float) -> str:
    """Return a time in the unit that fits it."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def format_number(value: Any, signed: bool = False) -> str:
    """Return a number as tables show it; nothing for None."""
    if not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    size = ".2f" if not math.isfinite(value) or abs(value) < 1e6 else ".4g"
    return f"{value:{'+' if signed else ''}{size}}".replace("-", "−")


def plural(count: int, what: str) -> str:
    """Return a number of things."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def arrows(text: str | None) -> str:
    """Write arrows as one sign, which no line breaks in."""
    return (text or "").replace("->", "→")


def _section(experiment: Experiment, files: Files, names: Names) -> dict[str, Any]:
    """Return what the template takes of an experiment."""
    record, path = experiment.record, experiment.path
    own = names(f"experiment-{experiment.key}")
    runs: dict[str, list[dict]] = {}
    for run in record["runs"]:
        links = _links(run["files"], experiment.root, files)
        text = json.dumps(run["row"], indent=1, sort_keys=True) if run["row"] else ""
        runs.setdefault(run["name"], []).append(dict(run, links=links, text=text))
    places = {name: names(f"{own}-{name}") for name in runs}
    failed = sum(not run["row"] for run in record["runs"])
    tables = [path, path.with_suffix(".csv"), files.results / ROWS]
    return dict(
        id=own,
        record=record,
        counts=plural(len(record["runs"]), "run") + (f", {failed} failed" if failed else ""),
        failed=failed,
        finished=[run for run in record["runs"] if run["row"]],
        tables=[_table(metric, record, places, own) for metric in record["metrics"]],
        sources=files.describe(
            [os.path.relpath(each, files.results) for each in tables if each.is_file()],
            files.results,
        ),
        groups=[_group(name, each, record, places[name]) for name, each in runs.items()],
        figures=[],
        missing=[],
    )


def _table(metric: Mapping, record: Mapping, places: Mapping, own: str) -> dict[str, Any]:
    rows: dict[str, dict[str, dict]] = {}
    for name, cell in metric["cells"].items():
        std = "" if cell["std"] is None else f"± {format_number(cell['std'])} "
        shown = dict(spread=f"{std}({cell['n']})", target=places.get(name, own))
        row, column = record["cells"][name]
        rows.setdefault(row, {})[column] = {**cell, **shown}
    cells = [cell for row in rows.values() for cell in row.values()]
    columns = list(dict.fromkeys(record["cells"][name][1] for name in metric["cells"]))
    return dict(
        title=metric["title"],
        matrix=any(columns),
        width=min(16, max([3, *(len(cell["spread"]) for cell in cells)])),
        columns=columns,
        with_paper=any(cell["paper"] is not None for cell in cells),
        rows=rows,
        comparisons=[pair["text"] for pair in metric["comparisons"]],
    )


def _group(name: str, runs: list[dict], record: Mapping, place: str) -> dict[str, Any]:
    """Return the runs of a cell."""
    metrics = record["metrics"] if name in record["cells"] else [DEFAULT_METRIC]
    label = arrows(", ".join(filter(None, record["cells"].get(name, []))))
    for run in runs:
        run["numbers"] = [_measured(run["row"] or {}, metric["key"]) for metric in metrics]
    return dict(
        id=place,
        label=label or f"{name} (no cell of its own)",
        titles=[metric["title"] for metric in metrics],
        failed=sum(not run["row"] for run in runs),
        method=describe_method(runs[0]["method"]),
        runs=runs,
    )


def _measured(row: Mapping[str, Any], metric: str) -> float | None:
    split, _, key = metric.partition(".")
    return (row.get(split) or {}).get(key)


def _links(found: Mapping[str, Any], root: Path, files: Files) -> list[dict[str, Any]]:
    """Return links to what a run left."""
    count = len(found["scalars"])
    labels = [f"scalars {number}" if count > 1 else "scalars" for number in range(1, count + 1)]
    paths = [("log", found["log"])] if found["log"] else []
    paths += zip(labels, found["scalars"], strict=True)
    paths += [(f"logits {split}", path) for split, path in found["dumps"].items()]
    return [files.link(label, path, root) for label, path in paths]


def build_report(
    results: str | Path,
    out: str | Path | None = None,
    root: str | Path | None = None,
    figures: Mapping[str, ModuleType] = FIGURES,
) -> tuple[Path, list[str]]:
    """Write the page, one file that fetches nothing, and the figures beside the results.

    Return its path, and problems such as figures that cannot be drawn.
    """
    found = read_results(results, root)
    out = Path(results, "report.html") if out is None else Path(out)
    check_out_file("the page", out)
    files, names = Files(out.parent, found.folder), Names()
    for name in ("main", "overview", "figures", "others"):
        names(name)
    sections = {each.key: _section(each, files, names) for each in found.experiments}
    across: dict[str, list] = dict(figures=[], missing=[])
    unwritten = []
    for experiment, rendered in render_figures(found.experiments, figures):
        section = sections[experiment.key] if experiment else across
        if isinstance(rendered, str):
            section["missing"].append(rendered)
            continue
        try:
            paths = rendered.write(found.folder / "figures")
        except OSError as error:
            paths = []
            unwritten = [f"The figures are on the page alone: {error}"]
        section["figures"].append(
            dict(
                embed(rendered, experiment.root if experiment else found.folder, files),
                id=names(f"figure-{rendered.drawing.name}"),
                files=[
                    files.link(path.suffix[1:].upper(), f"figures/{path.name}", found.folder)
                    for path in paths
                ],
            )
        )
    runs = [run for each in sections.values() for group in each["groups"] for run in group["runs"]]
    lost = sum(bool(r["links"]) and not any(link["exists"] for link in r["links"]) for r in runs)
    missing = sum(len(section["missing"]) for section in [*sections.values(), across])
    problems = [*found.problems, *unwritten]
    if lost:
        what = plural(lost, "run")
        problems.append(f"The files of {what} are gone; if they were moved, --root says where.")
    if missing:
        what = plural(missing, "figure")
        problems.append(f"{what} could not be drawn; the page says at its experiment why.")
    lines = {run["line"] for run in runs}
    page = dict(
        across,
        title="Distilling logits: what was measured",
        subtitle=f"Made from the files in {found.folder.resolve().name}/",
        problems=problems,
        runs=list({run["work_dir"]: run for run in runs}.values()),
        experiments=list(sections.values()),
        others={line: row for line, row in found.rows.items() if line not in lines},
        rows=files.describe([ROWS], files.results)[0],
    )
    # A name of a file may hold bytes that are no text.
    write_text(out, render_page(page), errors="backslashreplace", follow=True)
    return out, problems


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
    page, style, script = (
        Path(__file__).with_name(f"report.{kind}").read_text("utf-8")
        for kind in ("html.j2", "css", "js")
    )
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters.update(
        number=format_number, arrows=arrows, duration=duration, plural=plural, quote=shlex.quote,
        isfinite=math.isfinite,
    )  # fmt: skip
    return environment.from_string(page), style, script


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
