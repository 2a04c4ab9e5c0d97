"""What a report says of one exhibit, as plain values for its template."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._report_files import Files, Names
from ._report_runs import describe_method, run_facts

DEFAULT_METRIC = dict(title="test top-1 (%)", key="test.accuracy/top1", cells={}, comparisons=[])


def number(value: Any, signed: bool = False) -> str:
    """Return a number as tables show it; nothing for None.

    Args:
        value: The number, or None.
        signed: Whether a plus is written.
    """
    if value is None:
        return ""
    return f"{float(value):{'+' if signed else ''}.2f}".replace("-", "−")


def quoted(words: Sequence[str]) -> list[str]:
    """Return a command's words as a shell takes them.

    Args:
        words: Of the command.
    """
    return [shlex.quote(str(word)) for word in words]


def _spread(cell: Mapping[str, Any]) -> str:
    std = "" if cell["std"] is None else f" ± {number(cell['std'])}"
    return f"{std} ({cell['n']})"


class ExhibitView:
    """Turns an exhibit file into sections of a page.

    Args:
        record: What the file holds.
        path: The file.
        root: Where its runs were made.
        files: Of the report.
        names: Of places in the page.
    """

    def __init__(
        self, record: Mapping[str, Any], path: Path, root: Path, files: Files, names: Names
    ) -> None:
        self.record, self.path, self.root = record, path, root
        self.files, self.names = files, names
        parts = filter(None, [record.get("scale"), record["name"]])
        self.key = "/".join(parts)
        self.id = names("-".join(["exhibit", *self.key.split("/")]))
        self.places: dict[str, str] = {}
        for run in record["runs"]:
            if run["name"] not in self.places:
                self.places[run["name"]] = names(f"{self.id}-{run['name']}")

    def section(self) -> dict[str, Any]:
        """Return the whole section, but for its figures."""
        record, runs = self.record, self.record["runs"]
        finished = [run for run in runs if run["row"]]
        failed = len(runs) - len(finished)
        epochs = sorted({run["epochs"] for run in finished})
        seeds = len({run["seed"] for run in runs})
        counts = f"{len(runs)} runs" + (f", {failed} failed" if failed else "")
        table = self.path.with_suffix(".csv")
        rows = self.files.results / "runs.jsonl"
        sources = [p for p in (self.path, table, rows) if p.is_file()]
        return dict(
            id=self.id,
            title=record["title"],
            scale=record.get("scale"),
            note=record.get("note"),
            protocol=record.get("protocol"),
            command=quoted(record["command"]),
            legend=list(record.get("legend", {}).items()),
            counts=counts,
            finished=len(finished),
            failed=failed,
            seeds=seeds,
            epochs="–".join(str(each) for each in dict.fromkeys([*epochs[:1], *epochs[-1:]])),
            tables=[self._table(metric) for metric in record["metrics"]],
            sources=[self._source(path) for path in sources],
            figures=[],
            gaps=self._gaps(failed),
            groups=[self._group(name) for name in self.places],
        )

    def _source(self, path: Path) -> dict[str, Any]:
        (described,) = self.files.describe([Path.cwd() / path], self.root)
        return dict(described, path=path.name)

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
            columns=columns,
            with_paper=any(cell["paper"] for cell in cells.values()),
            rows=[
                dict(label=label, cells=[line.get(column) for column in columns])
                for label, line in grid.items()
            ],
            comparisons=[pair["text"] for pair in metric.get("comparisons", [])],
        )

    def _cell(self, name: str, cell: Mapping[str, Any]) -> dict[str, Any]:
        mean = cell["mean"]
        return dict(
            mean=number(mean),
            spread=_spread(cell),
            failed=int(cell["failed"]),
            paper=number(cell["paper"]),
            mark=cell["mark"],
            meaning=self.record.get("legend", {}).get(cell["mark"], ""),
            difference=number(cell["difference"], signed=True),
            value="" if mean is None or not math.isfinite(mean) else repr(float(mean)),
            target=self.places.get(name, self.id),
        )

    def _group(self, name: str) -> dict[str, Any]:
        runs = [run for run in self.record["runs"] if run["name"] == name]
        metrics = [m for m in self.record["metrics"] if name in m["cells"]] or [DEFAULT_METRIC]
        label = ", ".join(filter(None, self.record["cells"].get(name, [])))
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
            facts=run_facts(run),
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
            what = f"{failed} of {len(self.record['runs'])} runs failed. They are tried again by"
            gaps.append(dict(text=what, command=quoted(words)))
        bare = [run for run in runs if not run["files"].get("dumps")]
        if bare:
            what = f"{len(bare)} of {len(runs)} finished runs kept no logits, which some figures "
            dump = [word for word in words if word != "--dump-logits"] + ["--dump-logits"]
            gaps.append(dict(text=f"{what}need. They are written by", command=quoted(dump)))
        silent = [run for run in runs if not run["files"].get("scalars")]
        if silent:
            what = f"{len(silent)} of {len(runs)} finished runs left no scalars, which curves of "
            again = quoted(silent[0]["command"])
            text = f"{what}training need. They come with training, such as"
            gaps.append(dict(text=text, command=again))
        return gaps


def _measured(run: Mapping[str, Any], metric: Mapping[str, Any]) -> str:
    """Return a run's own number: what its cell was given, or what its row holds."""
    cell = metric["cells"].get(run["name"])
    if cell is not None:
        return number(cell["by_seed"].get(str(run["seed"])))
    split, _, key = metric["key"].partition(".")
    return number(((run["row"] or {}).get(split) or {}).get(key))
