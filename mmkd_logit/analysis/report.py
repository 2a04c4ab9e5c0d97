"""``tools/report.py``: one page with every table and figure of a folder of results."""

import argparse
import base64
import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from mmkd_logit._checks import check_out_file
from mmkd_logit._command_line import OneLineParser

from ._report_figures import show_figures
from ._report_files import Files, Names
from ._report_read import ExhibitFile, read_exhibit_files
from ._report_runs import duration
from ._report_view import ExhibitView


def build_report(
    results: str | Path,
    out: str | Path | None = None,
    root: str | Path | None = None,
    draw: Callable[[Sequence[Any], Path], Sequence[Any]] | None = None,
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
    if root is not None and not Path(root).is_dir():
        raise FileNotFoundError(f"the folder of the runs' files {root} does not exist")
    exhibits = read_exhibit_files(results, root)
    out = Path(results, "report.html") if out is None else Path(out)
    check_out_file("the page", out)
    files, names, problems = Files(out.parent, Path(results)), Names(), list[str]()
    for name in ("main", "overview", "figures"):
        names(name)
    sections = {}
    for e in exhibits:
        try:
            view = ExhibitView(e.record, e.path, e.root, files, names)
            sections[view.key] = view.section()
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{e.path} is not as tools/reproduce.py writes it ({error!r}); write it again"
            ) from None
    figures = _draw(exhibits, draw, files, names, problems)
    for exhibit, figure in figures:
        if exhibit in sections:
            sections[exhibit]["figures"].append(figure)
    page = dict(
        title="Distilling logits: what was measured",
        subtitle=f"Made from the files in {Path(results).name}/",
        problems=problems,
        facts=_facts([e.record for e in exhibits]),
        exhibits=list(sections.values()),
        figures=[figure for exhibit, figure in figures if exhibit not in sections],
    )
    _write(out, render_page(page))
    return out, problems


def _draw(
    exhibits: Sequence[ExhibitFile],
    draw: Callable[[Sequence[Any], Path], Sequence[Any]] | None,
    files: Files,
    names: Names,
    problems: list[str],
) -> list[tuple[str | None, dict[str, Any]]]:
    """Draw; a figure that fails takes no table with it."""
    root = exhibits[0].root
    try:
        draw = draw or importlib.import_module(f"{__package__}.figures").draw_all
        return show_figures(draw(exhibits, root), files, names, root)
    except Exception as error:
        text = " ".join(str(error).split())
        problems.append(f"The figures could not be drawn: {type(error).__name__}: {text}")
        return []


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
    seconds = sum(row.get("train_seconds", 0) / max(1, row.get("together", 1)) for row in rows)
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
    folder = resources(__package__)
    texts = {kind: folder.joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js")}
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(texts['css'])}; script-src {_hash(texts['js'])}"
    )
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    template = environment.from_string(folder.joinpath("report.html.j2").read_text("utf-8"))
    style, script = Markup(texts["css"]), Markup(texts["js"])
    return template.render(page=page, policy=policy, style=style, script=script).lstrip()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(f"{path}.{os.getpid()}.part")
    try:
        # A name of a file may hold bytes that are no text.
        part.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


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
