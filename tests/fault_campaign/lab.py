"""Places to run in, and what an uninterrupted run leaves there."""

import json
import shutil
import time
from collections import Counter
from pathlib import Path

from same_runs import differences, row_differences

from fault_campaign.children import finish, start, tracing
from fault_campaign.kinds import KINDS, TEACHERS, Kind, copy_place, make_base
from mmkd_logit.engine.fingerprint import read_run
from mmkd_logit.engine.results import read_lines


class Lab:
    """Makes places in an empty folder, and compares them with those of uninterrupted runs.

    Attributes:
        sabotage: Called in each process that is killed or goes on, to break the product, or None.
    """

    def __init__(self, folder):
        self.folder, self.sabotage = Path(folder), None
        self._number, self._wholes = 0, {}
        self.base = self.folder / "base"
        self.base.mkdir(parents=True)
        make_base(self.base)
        for name in TEACHERS:
            self._must_end_well(Kind(name, (f"tiny/{name}.py", "--work-dir", name)), self.base)

    def _must_end_well(self, kind, place, prepare=None):
        children = start(kind, place, prepare=prepare)
        problems = finish(children)
        if problems:
            raise RuntimeError(f"{kind.name} fails by itself: {problems}\n{children[0].said()}")

    def whole(self, name):
        """Run a kind without interruption, once, and return what it was (:class:`Whole`)."""
        if name not in self._wholes:
            self._wholes[name] = Whole(self, KINDS[name])
        return self._wholes[name]

    def fresh(self, name):
        """Make a place in which a kind has not begun."""
        self._number += 1
        return copy_place(self.whole(name).begin, self.folder / f"{self._number}")

    def renew(self, name, place):
        """Make a place that was used one in which a kind has not begun."""
        shutil.rmtree(place)
        copy_place(self.whole(name).begin, place)

    def start(self, kind, place, resume=False, prepare=None):
        """Start a command, of the product or of what the sabotage makes of it."""

        def prepared(rank):
            if self.sabotage is not None:
                self.sabotage(rank)
            if prepare is not None:
                prepare(rank)

        return start(kind, place, resume, prepared)

    def go_on(self, name, place, rows_again=False):
        """Run a command to its end, and say what is wrong with that and with what it leaves."""
        children = self.start(KINDS[name], place, resume=True)
        return finish(children) or self.compare(name, place, rows_again)

    def compare(self, name, place, rows_again=False):
        """Say what differs from the uninterrupted run, and what was left behind.

        A row that stands there twice is a difference, unless it may.
        """
        whole = self.whole(name)
        found = []
        folders = [whole.folders(whole.place), whole.folders(place)]
        if folders[0] != folders[1]:
            found.append(f"folders: {folders[0]} != {folders[1]}")
        for folder in sorted({*folders[0]} & {*folders[1]}):
            try:
                texts = differences(whole.place / folder, place / folder)
            except (ValueError, OSError, AssertionError) as error:
                texts = [f"{type(error).__name__}: {error}"]
            found += [f"{folder}: {text}" for text in texts]
        rows = [_rows(each) for each in (whole.place, place)]
        if rows_again:
            rows[1] = [
                row
                for number, row in enumerate(rows[1])
                if all(row_differences(row, before) for before in rows[1][:number])
            ]
        if len(rows[0]) != len(rows[1]):
            found.append(f"{len(rows[0])} != {len(rows[1])} rows of results")
        for pair in zip(*rows, strict=False):
            found += row_differences(*pair)
        left = [p for p in place.rglob(".*") if p.name.endswith((".part", ".new"))]
        return found + [f"left behind: {path.relative_to(place)}" for path in left]

    def forget(self, place):
        """Remove a place."""
        shutil.rmtree(place)


def _rows(place):
    """The rows, without what may change while the campaign runs: the state of the code's folder."""
    rows = read_lines(place / "runs.jsonl")
    return [{k: v for k, v in row.items() if k not in ("commit", "dirty")} for row in rows]


class Whole:
    """An uninterrupted run.

    Attributes:
        begin: A place in which it has not begun.
        place: Where it ran.
        writes: How often what was written, by place and name as in ``pausing``.
        cpu: Seconds that it took of the CPU.
    """

    def __init__(self, lab, kind):
        self.kind = kind
        safe = kind.name.replace(" ", "-")
        self.begin = copy_place(lab.base, lab.folder / f"begin-{safe}")
        if kind.caches:
            # Another run fills it.
            words = ("tiny/cached.py", "--work-dir", "filled")
            lab._must_end_well(Kind("fill", words), self.begin)
            shutil.rmtree(self.begin / "filled")
        self.place = copy_place(self.begin, lab.folder / f"whole-{safe}")
        notes = lab.folder / f"writes-{safe}"
        children = start(kind, self.place, prepare=tracing(notes))
        cpu, begin = 0.0, time.monotonic()
        while children[0].ended() is None and time.monotonic() - begin < 300:
            cpu = max(cpu, children[0].cpu())
            time.sleep(0.02)
        problems = finish(children)
        if problems:
            raise RuntimeError(f"{kind.name} fails by itself: {problems}\n{children[0].said()}")
        self.cpu = cpu
        lines = notes.read_text().splitlines()
        self.writes = Counter(tuple(line.split("\t")) for line in lines)

    def folders(self, place):
        found = {path for pattern in self.kind.folders for path in place.glob(pattern)}
        return sorted(str(path.relative_to(place)) for path in found if path.is_dir())


def checkpoint_named(place, folder="run"):
    """The iteration of the checkpoint that a cut-off run would go on from, or None."""
    names = read_run(Path(place, folder)).get("checkpoints")
    number = Path(names[-1]).stem.rpartition("_")[2] if names else ""
    return int(number) if number.isdigit() else None


def resumed_at(place):
    """The iteration at which the run of the last row of results began."""
    return json.loads(Path(place, "runs.jsonl").read_text().splitlines()[-1])["resumed_at"]
