"""Tries of one kind of harm, and the table of what came of them."""

import time
from dataclasses import dataclass, field

import pytest


@dataclass
class Row:
    """One kind of fault on one kind of run: what was wrong stands by the number of the try."""

    fault: str
    run: str
    tries: int = 0
    survived: int = 0
    seconds: float = 0.0
    problems: dict[str, list[str]] = field(default_factory=dict)
    skipped: str = ""

    @property
    def is_good(self):
        return self.survived == self.tries and bool(self.tries or self.skipped)


def trying(fault, run, tries):
    """Make a function of one try one of all, that gives a row of the table.

    The function gets the laboratory, a fresh place, random numbers and the number of the try, and
    gives what was done and what was wrong.
    """

    def decorate(function):
        def run_all(lab, random, say, tries=tries):
            row, begin = Row(fault, run), time.monotonic()
            for number in range(tries):
                place = lab.fresh(run)
                try:
                    how, problems = function(lab, place, random, number)
                except pytest.skip.Exception as why:
                    row.skipped = str(why)
                    break
                row.tries += 1
                row.survived += not problems
                if problems:
                    row.problems[f"{row.tries}: {how}"] = problems
                else:
                    lab.forget(place)
                outcome = "WRONG" if problems else "survived"
                say(f"{fault}, {run}, {row.tries}/{tries}: {how}: {outcome}")
            row.seconds = time.monotonic() - begin
            return row

        run_all.__doc__ = function.__doc__
        return run_all

    return decorate


def as_table(rows):
    """What came of the faults, in Markdown."""
    lines = ["| fault | run | tries | survived | seconds |", "| --- | --- | ---: | ---: | ---: |"]
    for row in rows:
        tries = f"skipped: {row.skipped}" if row.skipped else row.tries
        lines.append(f"| {row.fault} | {row.run} | {tries} | {row.survived} | {row.seconds:.0f} |")
    for row in rows:
        for how, problems in row.problems.items():
            lines += ["", f"{row.fault}, {row.run}, try {how}:"]
            lines += [f"* {text}" for text in problems[:12]]
    return "\n".join(lines)
