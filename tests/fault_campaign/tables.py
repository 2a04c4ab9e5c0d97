"""What came of the faults, for people and for programs."""

import json
from dataclasses import asdict, dataclass, field


@dataclass
class Row:
    """One kind of fault on one kind of run.

    Attributes:
        fault: What was done.
        run: To what.
        tries: How often.
        kills: How many SIGKILLs that were.
        inside: How many of those came inside a write.
        survived: After how many tries all was as it is without the fault.
        seconds: All tries together.
        problems: What was wrong, by the number of the try.
        skipped: Why it was not tried here, or nothing.
    """

    fault: str
    run: str
    tries: int = 0
    kills: int = 0
    inside: int = 0
    survived: int = 0
    seconds: float = 0.0
    problems: dict[str, list[str]] = field(default_factory=dict)
    skipped: str = ""

    def add(self, how, problems, kills=0, inside=0):
        """Count a try."""
        self.tries += 1
        self.kills += kills
        self.inside += inside
        self.survived += not problems
        if problems:
            self.problems[f"{self.tries}: {how}"] = problems


def is_well(rows):
    """Whether nothing was wrong, and anything was tried."""
    well = [row.survived == row.tries and (row.tries or row.skipped) for row in rows]
    return bool(well) and all(well)


def as_markdown(rows):
    lines = [
        "| fault | run | tries | SIGKILLs | inside a write | survived | seconds |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        numbers = [row.tries, row.kills, row.inside, row.survived, f"{row.seconds:.0f}"]
        if row.skipped:
            numbers[0] = f"skipped: {row.skipped}"
        lines.append(f"| {row.fault} | {row.run} | {' | '.join(map(str, numbers))} |")
    total = [sum(getattr(r, k) for r in rows) for k in ("tries", "kills", "inside", "survived")]
    seconds = sum(row.seconds for row in rows)
    lines.append(f"| all | | {' | '.join(map(str, total))} | {seconds:.0f} |")
    for row in rows:
        for how, problems in row.problems.items():
            lines += ["", f"{row.fault}, {row.run}, try {how}:"]
            lines += [f"* {text}" for text in problems[:12]]
    return "\n".join(lines) + "\n"


def as_json(rows, **more):
    return json.dumps(dict(more, rows=[asdict(row) for row in rows]), indent=1) + "\n"
