"""``tools/publish_results.py``: put measured numbers into READMEs and metafiles."""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from mmkd_logit.engine.config import FINAL, model_teachers
from mmkd_logit.engine.fingerprint import (
    FILES,
    computed_content,
    describe_test,
    fingerprint,
    row_fingerprint,
    same_test,
)
from mmkd_logit.engine.launch import running_tool
from mmkd_logit.engine.results import append_line, holds, read_lines
from mmkd_logit.registry import config_path
from mmkd_logit.utils.arguments import without
from mmkd_logit.utils.cli import OneLineParser
from mmkd_logit.utils.files import write_text

from .experiment import Experiment, Run, read_once
from .reproduce import build_parser as reproduce_parser
from .reproduce import find_experiments
from .tables import render

MEASURED = Path("configs", "paper", "measured.jsonl")
_ROW = ("config", "computed", "seed", "weights", "test", "finished")
_BLOCK = re.compile(r"(<!-- measured: ([^\n]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_ENTRY = re.compile(r"  - Name: (\S+)\n(?:    .*\n)+")
_RESULTS = re.compile(r"    Results:\n(?:      .*\n)+")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/publish_results.py``."""
    parser = OneLineParser(
        description=f"Render the rows of {MEASURED} into the tables of READMEs and the metafiles"
    )
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    parser.add_argument("--add", metavar="FILE", help=f"first append these rows to {MEASURED}")
    return parser


def measured_rows(
    runs: Sequence[Run], rows: Sequence[dict], experiment: Experiment | None = None
) -> dict[Run, dict | None]:
    """Find the newest row of each run by what it says of itself.

    No work folder is looked at: a row counts if it was made by the config as it is now, and its
    teachers are the weights of the rows found for them.
    """
    found: dict[Run, dict | None] = {}
    weights: dict[str, str] = {}
    newest = [(row, _fingerprint(row.get("computed"))) for row in reversed(rows)]
    for run in runs:
        if any(teacher.work_dir not in weights for teacher in run.teachers):
            continue
        finals = {str(Path(t.work_dir, FINAL)): weights[t.work_dir] for t in run.teachers}
        cfg = run.build_config()
        expected = _fingerprint(computed_content(cfg, weights=finals))
        tested = describe_test(cfg)
        needed = experiment.measured if experiment and run.name in experiment.cells else ()
        for row, made in newest:
            same = made == expected and same_test(row, tested)
            if same and all(holds(row, key) for key in needed):
                found[run], weights[run.work_dir] = row, row["weights"]
                break
    return found


def _fingerprint(content: Any) -> str | None:
    """Return the fingerprint of a content without its files, which need not be here."""
    files = ("scores", *FILES)
    kept = without(content, lambda key, _: key in files)
    return fingerprint(kept) if isinstance(content, dict) else None


def render_block(words: str, rows: Sequence[dict]) -> str:
    """Render what a ``tools/reproduce.py`` command line makes, or the JSON of a benchmark.

    ``--metric KEY`` at its end leaves the table of one metric.
    """
    if words.endswith(".json"):
        from .benchmark.speed import render as render_benchmark  # imports every network

        return render_benchmark(json.loads(Path(words).read_text())) + "\n"
    words, _, metric = words.partition(" --metric ")
    args = reproduce_parser().parse_args(shlex.split(words))
    seeds = sorted({row["seed"] for row in rows if row["seed"] < 1000})
    texts = []
    for path in find_experiments(args.experiments, args.scale):
        experiment = Experiment(path, tuple(args.cfg_options), args.epochs, args.only, args.fast)
        if metric:
            experiment.metrics = [each for each in experiment.metrics if each["key"] == metric]
            if not experiment.metrics:
                raise ValueError(f"the experiment {experiment.name} has no metric {metric!r}")
        texts.append(render(experiment, measured_rows(experiment.runs(seeds), rows, experiment)))
    return "\n\n".join(texts) + "\n"


def render_readme(text: str, rows: Sequence[dict]) -> str:
    """Fill the blocks ``<!-- measured: WORDS -->`` to ``<!-- end -->`` of a page."""
    return _BLOCK.sub(lambda match: match[1] + render_block(match[2], rows) + match[4], text)


def render_metafile(text: str, rows: Sequence[dict]) -> str:
    """Write the ``Results`` of a metafile's models: means over seeds at the config's own epochs.

    A model of one seed gets none.
    """

    def fill(match: re.Match) -> str:
        entry = _RESULTS.sub("", match[0])
        config = re.search(r"Config: (\S+)", entry)
        data = re.search(r"Training Data: (.*)", entry)
        if config is None or data is None:  # a collection
            return match[0]
        top1 = {}
        for row in rows:
            if _same_config(row, config[1]) and _is_usual(row, rows):
                top1[row["seed"]] = row["test"]["accuracy/top1"]
        if len(top1) < 2:
            return entry
        return entry + (
            "    Results:\n"
            f"      - Dataset: {data[1]}\n"
            "        Task: Image Classification\n"
            "        Metrics:\n"
            f"          Top 1 Accuracy: {mean(top1.values()):.2f}\n"
            f"          Seeds: {len(top1)}\n"
        )

    return _ENTRY.sub(fill, text)


def _same_config(row: dict, config: str) -> bool:
    return config_path(row["config"]).resolve() == config_path(config).resolve()


def _is_usual(row: dict, rows: Sequence[dict]) -> bool:
    """Whether a row is of its config as it is now, taught by the run of the teacher's config."""
    if row["seed"] >= 1000:  # of an ensemble, see ``seed_shift``
        return False
    weights = {}
    for teacher in model_teachers(read_once(row["config"])):
        own = [each for each in rows if _same_config(each, str(teacher.config))]
        known = [each["weights"] for each in own if each["weights"] in row["teachers"]]
        if teacher.file is not None:
            if not any(_is_usual(each, rows) for each in own if each["weights"] in known):
                return False
            weights[teacher.checkpoint] = known[0]
    cfg = Run("", row["config"], (), row["seed"]).build_config()
    same = row_fingerprint(row) == fingerprint(computed_content(cfg, weights=weights))
    return same and same_test(row, describe_test(cfg))


def main(argv: Sequence[str] | None = None) -> None:
    """Run ``tools/publish_results.py``."""
    args = build_parser().parse_args(argv)
    with running_tool():
        if not Path("configs", "paper").is_dir():
            raise FileNotFoundError("configs/paper does not exist here; run from the project")
        if args.add:
            _add_rows(Path(args.add))
        rows = read_lines(MEASURED)
        stale = []
        pages = [Path("README.md"), *Path("docs").glob("*.md")]
        pages += sorted(Path("configs").glob("*/README.md"))
        for page in [*pages, *sorted(Path("configs").glob("*/metafile.yml"))]:
            before = page.read_text()
            fill = render_metafile if page.suffix == ".yml" else render_readme
            after = fill(before, rows)
            if after != before:
                stale.append(str(page))
                if not args.check:
                    write_text(page, after, follow=True)
        if stale and args.check:
            raise ValueError(
                f"{', '.join(stale)} do not show what {MEASURED} says; "
                "run python tools/publish_results.py"
            )
        print(f"{len(rows)} rows; {'changed: ' + ', '.join(stale) if stale else 'up to date'}")


def _add_rows(file: Path) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"the results file {file} does not exist")
    known = {(row["weights"], row["finished"]) for row in read_lines(MEASURED)}
    new = read_lines(file)
    for number, row in enumerate(new, 1):
        lacking = [name for name in _ROW if name not in row]
        if lacking:
            raise ValueError(
                f"row {number} of {file} has no {', '.join(lacking)}; rows are those that "
                "tools/train.py --results writes"
            )
    for row in new:
        if (row["weights"], row["finished"]) not in known:
            # Where a machine keeps its files is no part of a measurement.
            words = row.get("command", [])
            words = [Path(word).name if Path(word).is_absolute() else word for word in words]
            append_line(MEASURED, dict(row, command=words))
            print(f"added {row['config']}, seed {row['seed']}", file=sys.stderr)
