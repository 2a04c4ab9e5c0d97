"""A process of torchrun's dies: it starts all again, or all end; or torchrun dies, and all end."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from processes import HERE, free_port

from fault_campaign.trying import trying

_ALL_END = 60  # seconds
_BYTES = ("run: final.pth", "row.weights:")


@trying("dead rank of torchrun", "two processes", 2)
def dead_rank(lab, place, random, number):
    """With MAX_RESTARTS it goes on from the last checkpoint by itself; without, nothing is left."""
    return _torchrun(lab, place, random, restarts=number)


@trying("dead torchrun", "two processes", 2)
def dead_launcher(lab, place, random, number):
    """All end that it has started, also when it would start them again."""
    return _torchrun(lab, place, random, restarts=number, launcher=True)


def _torchrun(lab, place, random, restarts, launcher=False):
    words = ["tools/dist_train.sh", "tiny/two.py", "2", "--work-dir", "run"]
    words += ["--results", "runs.jsonl", "--resume"]
    variables = dict(
        PYTHONPATH=str(HERE.parent),
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        MAX_RESTARTS=str(restarts),
        PORT=free_port(),
    )
    with open(place / "said-torchrun", "wb") as said:
        parent = subprocess.Popen(
            words,
            cwd=place,
            env={**os.environ, **variables},
            stdout=said,
            stderr=said,
        )
        try:
            problems = _kill_one(parent, place, random, restarts, launcher)
        finally:
            for pid in _living(place):
                os.kill(pid, signal.SIGKILL)
            parent.wait()
    how = f"MAX_RESTARTS={restarts}"
    if problems:
        return how, problems
    ended = restarts and not launcher
    problems = lab.compare("two processes", place) if ended else lab.go_on("two processes", place)
    # It formats the config's text in the file; what else is in it is compared all the same.
    return how, [text for text in problems if text != _BYTES[0] and not text.startswith(_BYTES[1])]


def _kill_one(parent, place, random, restarts, launcher):
    begin = time.monotonic()
    while not (place / "run/iter_2.pth").is_file():
        if parent.poll() is not None or time.monotonic() - begin > 300:
            return [f"did not begin: {_end_of(place)}"]
        time.sleep(0.02)
    ranks = sorted(pid for pid in _living(place) if _parent_of(pid) == parent.pid)
    os.kill(parent.pid if launcher else random.choice(ranks), signal.SIGKILL)
    try:
        status = parent.wait(300 if restarts else _ALL_END)
    except subprocess.TimeoutExpired:
        return ["hung"]
    if launcher:
        begin = time.monotonic()
        while _living(place) and time.monotonic() - begin < _ALL_END:
            time.sleep(0.1)
    elif bool(status) == bool(restarts):
        return [f"exit status {status}: {_end_of(place)}"]
    left = _living(place)
    return [f"left behind: processes {left}"] if left else []


def _end_of(place):
    return Path(place, "said-torchrun").read_text(errors="replace")[-300:]


def _parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _living(place):
    """The processes that run in a place."""
    found = []
    for path in Path("/proc").iterdir():
        with suppress(OSError):  # it ended, or is a zombie
            if path.name.isdigit() and os.readlink(path / "cwd") == str(place.resolve()):
                found.append(int(path.name))
    return found
