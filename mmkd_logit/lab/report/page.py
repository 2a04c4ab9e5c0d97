"""``tools/report.py``: one page with every table and figure of a folder of results."""

import base64
import functools
import hashlib
import json
import math
import os
import shlex
from collections.abc import Mapping
from importlib.resources import files as resources
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
from markupsafe import Markup

from mmkd_logit.utils.arguments import check_out_file
from mmkd_logit.utils.files import write_text

from .data import ROWS, Experiment, read_results
from .figures import FIGURES
from .page_figures import Files, Names, embed, render_figures
from .style import noise_name

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
    if method.get("label_noise"):
        parts.append(noise_name(method["label_noise"]))
    return " · ".join(filter(None, parts))


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


class ExperimentView:
    """Turns an experiment into a section of the page."""

    def __init__(self, experiment: Experiment, files: Files, names: Names) -> None:
        self.experiment, self.files = experiment, files
        self.record = experiment.record
        self.id = names("-".join(["experiment", *experiment.key.split("/")]))
        runs = dict.fromkeys(run["name"] for run in self.record["runs"])
        self.places = {name: names(f"{self.id}-{name}") for name in runs}
        self.lost = 0  # runs of which no file is left

    def section(self) -> dict[str, Any]:
        """Return what the template takes."""
        runs, path = self.record["runs"], self.experiment.path
        failed = sum(not run["row"] for run in runs)
        tables = [path, path.with_suffix(".csv"), self.files.results / ROWS]
        return dict(
            id=self.id,
            record=self.record,
            counts=plural(len(runs), "run") + (f", {failed} failed" if failed else ""),
            failed=failed,
            finished=[run for run in runs if run["row"]],
            tables=[self._table(metric) for metric in self.record["metrics"]],
            sources=self.files.describe(
                [os.path.relpath(each, self.files.results) for each in tables if each.is_file()],
                self.files.results,
            ),
            groups=[self._group(name) for name in self.places],
            figures=[],
            missing=[],
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
                    text=json.dumps(run["row"], indent=1, sort_keys=True) if run["row"] else "",
                )
                for run in runs
            ],
        )

    def _links(self, found: Mapping[str, Any]) -> list[dict[str, Any]]:
        paths = [("log", found["log"])] if found["log"] else []
        for number, path in enumerate(found["scalars"], 1):
            paths.append((f"scalars {number}" if len(found["scalars"]) > 1 else "scalars", path))
        paths += [(f"logits {split}", path) for split, path in found["dumps"].items()]
        root = self.experiment.root
        self.lost += bool(paths) and not any(self.files.exists(path, root) for _, path in paths)
        return [self.files.link(label, path, root) for label, path in paths]


def _measured(run: Mapping[str, Any], metric: Mapping[str, Any]) -> float | None:
    """Return the number of a run."""
    split, _, key = metric["key"].partition(".")
    return ((run["row"] or {}).get(split) or {}).get(key)


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
    views = [ExperimentView(each, files, names) for each in found.experiments]
    sections = {view.experiment.key: view.section() for view in views}
    across: dict[str, list] = dict(figures=[], missing=[])
    unwritten = ""
    for experiment, rendered in render_figures(found.experiments, figures):
        section = sections[experiment.key] if experiment else across
        if isinstance(rendered, str):
            section["missing"].append(rendered)
            continue
        root = experiment.root if experiment else found.folder
        figure = embed(rendered, root, files)
        figure |= dict(id=names(f"figure-{rendered.drawing.name}"), files=[])
        try:
            for path in rendered.write(found.folder / "figures"):
                link = files.link(path.suffix[1:].upper(), f"figures/{path.name}", found.folder)
                figure["files"].append(link)
        except OSError as error:
            unwritten = f"The figures are on the page alone: {error}"
        section["figures"].append(figure)
    problems = found.problems
    lost = sum(view.lost for view in views)
    if lost:
        what = plural(lost, "run")
        problems.append(f"The files of {what} are gone; if they were moved, --root says where.")
    problems += [unwritten] if unwritten else []
    missing = sum(len(section["missing"]) for section in [*sections.values(), across])
    if missing:
        what = plural(missing, "figure")
        problems.append(f"{what} could not be drawn; the page says at its experiment why.")
    runs = [run for each in found.experiments for run in each.record["runs"]]
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
        duration=duration,
        plural=plural,
        quote=shlex.quote,
        isfinite=math.isfinite,
    )
    return environment.from_string(page), style, script


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
