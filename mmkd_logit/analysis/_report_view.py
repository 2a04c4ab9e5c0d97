"""What a report says of one exhibit, as plain values for its template."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from ._report_files import Files, Names
from ._report_read import ExhibitFile
from ._report_rows import ResultsRows
from ._report_runs import describe_method, number, run_facts

DEFAULT_METRIC = dict(title="test top-1 (%)", key="test.accuracy/top1", cells={}, comparisons=[])


def quoted(words: Sequence[str]) -> list[str]:
    """Return a command's words as a shell takes them.

    Args:
        words: Of the command.
    """
    return [shlex.quote(word) for word in words]


def plural(count: int, what: str) -> str:
    """Return a number of things.

    Args:
        count: How many.
        what: One of them.
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def arrows(text: str | None) -> str:
    """Write arrows as one sign, which no line breaks in.

    Args:
        text: A title or label.
    """
    return (text or "").replace("->", "→")


def _spread(cell: Mapping[str, Any]) -> str:
    std = "" if cell["std"] is None else f"± {number(cell['std'])} "
    return f"{std}({cell['n']})"


class ExhibitView:
    """Turns an exhibit file into a section of the page.

    Args:
        exhibit: The file.
        files: Of the report.
        names: Of places in the page.
        rows: Of the folder of results.
    """

    def __init__(self, exhibit: ExhibitFile, files: Files, names: Names, rows: ResultsRows) -> None:
        self.path, self.root, self.record = exhibit
        self.files, self.names, self.rows = files, names, rows
        self.id = names("-".join(["exhibit", *exhibit.key.split("/")]))
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
            mean=number(mean),
            spread=_spread(cell),
            failed=cell["failed"],
            paper=number(cell["paper"]),
            mark=cell["mark"],
            meaning=(self.record.get("legend") or {}).get(cell["mark"], ""),
            difference=number(cell["difference"], signed=True),
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
        return number(cell["by_seed"].get(str(run["seed"])))
    split, _, key = metric["key"].partition(".")
    return number(((run["row"] or {}).get(split) or {}).get(key))
