"""``tools/report.py``: one page with every table and figure of a folder of results."""

import argparse
import base64
import functools
import hashlib
import sys
from collections.abc import Iterable, Sequence
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from mmkd_logit._atomic_files import write_text
from mmkd_logit._checks import check_out_file
from mmkd_logit._command_line import OneLineParser

from ._report_figures import Draw, show_figures
from ._report_files import Files, Names
from ._report_read import ExhibitFile, read_exhibit_files
from ._report_rows import ResultsRows
from ._report_runs import duration
from ._report_view import ExhibitView, plural


def build_report(
    results: str | Path,
    out: str | Path | None = None,
    root: str | Path | None = None,
    draw: Draw | None = None,
) -> tuple[Path, list[str]]:
    """Write the page, and the figures beside the results.

    It is one file that fetches nothing. Figures that cannot be drawn are told on the page.

    Args:
        results: The folder that ``tools/reproduce.py`` wrote exhibits to.
        out: The page; by default ``RESULTS/report.html``.
        root: Where the runs were made, if not where the exhibits say.
        draw: Gives the figures of exhibits, by default ``figures.draw_all``.

    Returns:
        The path of the page, and what could not be done.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no exhibits, or one that cannot be read, or ``out`` is a folder.
        OSError: If the page cannot be written.
    """
    exhibits = read_exhibit_files(results, root)
    out = Path(results, "report.html") if out is None else Path(out)
    check_out_file("the page", out)
    files, names = Files(out.parent, Path(results)), Names()
    for name in ("main", "overview", "figures", "others"):
        names(name)
    rows = ResultsRows(Path(results))
    sections = {e.key: ExhibitView(e, files, names, rows).section() for e in exhibits}
    figures = show_figures(exhibits, draw, files, names)
    across: dict[str, list] = dict(figures=[], missing=[])
    for key, figure in figures.shown:
        (sections[key] if key else across)["figures"].append(figure)
    for key, text in figures.missing:
        (sections[key] if key else across)["missing"].append(text)
    problems = [*rows.problems, *_lost(exhibits, files), *filter(None, [figures.problem])]
    if figures.missing:
        what = plural(len(figures.missing), "figure")
        problems.append(f"{what} could not be drawn; the page says at its exhibit why.")
    records = [exhibit.record for exhibit in exhibits]
    page = dict(
        across,
        title="Distilling logits: what was measured",
        subtitle=f"Made from the files in {Path(results).resolve().name}/",
        problems=problems,
        facts=_facts(records),
        exhibits=list(sections.values()),
        others=rows.others(records),
        rows=rows.describe(files),
    )
    # A name of a file may hold bytes that are no text.
    write_text(out, render_page(page), errors="backslashreplace")
    return out, problems


def _lost(exhibits: Sequence[ExhibitFile], files: Files) -> list[str]:
    """Say how many runs' files are not where they were, as after a move."""
    lost = 0
    for exhibit in exhibits:
        for found in (run["files"] for run in exhibit.record["runs"]):
            dumps = (found.get("dumps") or {}).values()
            paths = [*filter(None, [found.get("log")]), *(found.get("scalars") or []), *dumps]
            lost += bool(paths) and not any(files.exists(path, exhibit.root) for path in paths)
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

    Args:
        page: What the template takes.
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
    """Run ``tools/report.py``.

    Args:
        argv: The command line without the program's name; ``sys.argv`` by default.
    """
    args = build_parser().parse_args(argv)
    try:
        path, problems = build_report(args.results, args.out, args.root)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(1) from None
    for problem in problems:
        print(problem, file=sys.stderr)
    print(path)
