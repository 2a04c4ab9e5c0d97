"""Other harm than SIGKILL: to files, disks, processes, clocks and by other runs."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import disks

from fault_campaign.children import Stop, finish, pausing_at
from fault_campaign.kinds import KINDS
from fault_campaign.lab import checkpoint_named, resumed_at
from fault_campaign.torchruns import dead_launcher, dead_rank
from fault_campaign.trying import trying


def cut_off(lab, name, place, count=1, file="iter_8.pth", at="after"):
    """Leave what a run leaves that was killed at a write; say what was wrong."""
    children = lab.start(KINDS[name], place, prepare=pausing_at(at, file, count, place / "sign"))
    if not children[0].wait_for((place / "sign").is_file):
        return [*finish(children), "it was not to be killed"]
    for child in children:
        child.kill()
    return []


def _damage(path, random, number):
    """Cut a file, empty it or change a bit of it, in turn."""
    size = path.stat().st_size
    kind = number % 3
    if kind == 0:
        bit = random.randrange(8 * size)
        with path.open("r+b") as file:
            file.seek(bit // 8)
            byte = file.read(1)[0] ^ (1 << bit % 8)
            file.seek(bit // 8)
            file.write(bytes([byte]))
        return f"bit {bit} of {path.name} flipped"
    left = random.randrange(1, size) if kind == 1 else 0
    os.truncate(path, left)
    return f"{path.name} cut to {left} of {size} bytes"


def _last_line(children):
    lines = [line for child in children for line in child.said().splitlines() if line.strip()]
    return next((line for line in reversed(lines) if "error: " in line), (lines or [""])[-1])


@trying("damaged checkpoint", "kd", 9)
def checkpoints(lab, place, random, number):
    """The last checkpoint is cut, emptied or changed, and sometimes the one before, too."""
    problems = cut_off(lab, "kd", place, file="last_checkpoint", count=4)  # of iteration 8
    named = checkpoint_named(place)
    how = _damage(place / f"run/iter_{named}.pth", random, number)
    expected = named - 2
    if number % 4 == 3:
        how += f", {_damage(place / f'run/iter_{expected}.pth', random, number + 1)}"
        expected = 0
    problems = problems or lab.go_on("kd", place)
    if not problems and "cannot be read as a checkpoint" not in _all_said(place):
        problems = ["silent: no word of the damage"]
    if not problems and resumed_at(place) != expected:
        problems = [f"went on at {resumed_at(place)} instead of {expected}"]
    return how, problems


def _all_said(place):
    return "".join(path.read_text(errors="replace") for path in sorted(place.glob("said-*")))


@trying("damaged small file", "kd", 6)
def small_files(lab, place, random, number):
    """What names the last checkpoint, lists them or says where they are from is damaged."""
    problems = cut_off(lab, "kd", place, file="iter_10.pth", at="within")
    name = ("last_checkpoint", "run.json", "scalars.json")[number // 2]
    path = next(place.glob(f"run/**/{name}"))
    how = _damage(path, random, 1 + number % 2) if name != "scalars.json" else _cut_line(path)
    return how, problems or lab.go_on("kd", place)


def _cut_line(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content.rstrip()) - 9])
    return f"last line of {path.name} cut"


@trying("damaged cache", "warm cache", 9)
def caches(lab, place, random, number):
    """Files of the teacher's logits are cut, emptied or changed before the run."""
    files = sorted(path for path in (place / "cache").rglob("*") if path.stat().st_size)
    files = [path for path in files if path.is_file()]
    how = _damage(files[number // 3 % len(files)], random, number)
    return how, lab.go_on("warm cache", place)


@trying("damaged final.pth of a teacher", "teachers first", 3)
def teachers(lab, place, random, number):
    """A teacher was finished, and its weights are damaged when the next one learns of them."""
    problems = cut_off(lab, "teachers first", place, file="iter_2.pth", count=2)
    (final,) = place.glob("run/*/final.pth")
    how = _damage(final, random, number)
    # Its weights are tested once more.
    return how, problems or lab.go_on("teachers first", place, rows_again=True)


_PREEMPTED = (("plain", 6), ("two processes", 4), ("loader workers", 4))


def preempting(name, tries):
    """Send a scheduler's signal at any moment of training, also to all that the run started."""

    @trying("SIGTERM or SIGUSR1", name, tries)
    def preempt(lab, place, random, number):
        return _preempt(lab, name, place, random, number)

    return preempt


def _preempt(lab, name, place, random, number):
    told = (signal.SIGTERM, signal.SIGUSR1)[number % 2]
    children = lab.start(KINDS[name], place)
    # From when it listens: until then there is nothing to be saved.
    checkpoint = place / "run/iter_2.pth"
    children[0].wait_for(checkpoint.is_file)
    children[0].wait_for_cpu(children[0].cpu() + random.uniform(0, 0.15) * lab.whole(name).cpu)
    workers = 0
    for child in children[: 1 + number // 2 % 2]:
        for worker in child.workers():
            with suppress(ProcessLookupError):
                os.kill(worker, told)
                workers += 1
        child.kill(told)
    how = f"{told.name} to {1 + number // 2 % 2 if len(children) > 1 else 1}"
    how += f" and {workers} workers" * (workers > 0)
    expected = 128 + told if told == signal.SIGTERM else os.EX_TEMPFAIL
    ends = [child.wait() for child in children]
    trained = (place / "run/final.pth").is_file()  # then it is tested, and does not listen
    if ends != [expected] * len(children) and not (trained and ends == [-told] * len(children)):
        return how, [f"exit status {ends}, not {expected}: {_last_line(children)}"]
    if name == "loader workers" and not workers and not trained:
        return how, ["it had no workers"]
    if "--resume" not in children[0].said() and not trained:
        return how, ["does not say how to go on"]
    named = (place / "run/last_checkpoint").read_text().rpartition("/")[2]
    problems = lab.go_on(name, place)
    return f"{how}, left {named}", problems


@trying("full disk", "kd", 4)
def full_disk(lab, place, random, number):
    """Others fill the disk while a file is written; then there is room again."""
    events = sorted(e for e in lab.whole("kd").writes if e[0] == "within" and "jsonl" not in e[1])
    file = events[number * len(events) // 4 + random.randrange(2) - 2][1]
    with disks.small_disk(place / "run", "4m"):
        children = lab.start(KINDS["kd"], place, prepare=_filling(file))
        status = children[0].wait()
        how = f"no room for {file}"
        said = _last_line(children)
        problems = []
        if status != 1 or "no space is left" not in said or "Make space" not in said:
            problems = [f"exit status {status}: {said[:300]}"]
        (place / "run/plug").unlink(missing_ok=True)
        named = checkpoint_named(place) or 0
        problems = problems or lab.go_on("kd", place)
    if not problems and resumed_at(place) != named:
        problems = [f"silently lost: went on at {resumed_at(place)} with iter_{named}.pth there"]
    return how, problems


def _filling(name):
    def prepare(rank):
        from mmkd_logit.utils import files as _atomic_files

        open_part = _atomic_files._open_part

        def opened(target):
            if target.name == name and not Path("run/plug").exists():
                disks.fill("run")
            return open_part(target)

        _atomic_files._open_part = opened

    return prepare


@trying("read-only work folder", "kd", 2)
def read_only(lab, place, random, number):
    """Before a run, and before one goes on."""
    problems = cut_off(lab, "kd", place) if number else []
    (place / "run").mkdir(exist_ok=True)
    with disks.read_only(place / "run"):
        before = _snapshot(place / "run")
        children = lab.start(KINDS["kd"], place, resume=bool(number))
        status, said = children[0].wait(), _last_line(children)
        if status != 1 or "may not be written" not in said:
            problems.append(f"exit status {status}: {said[:300]}")
        if _snapshot(place / "run") != before:
            problems.append("something was changed")
    return ("a new run", "a cut-off run")[number], problems or lab.go_on("kd", place)


def _snapshot(folder):
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@trying("two runs in a work folder", "kd", 4)
def two_runs(lab, place, random, number):
    """The second is refused, new or resumed, and the first does not notice."""
    # It stops by itself, or it might have ended, or not yet have the lock whose file is there.
    file = ("run.json", "iter_2.pth")[number % 2]
    stopping = pausing_at("after", file, 1, place / "sign", Stop)
    children = lab.start(KINDS["kd"], place, prepare=stopping)
    first = children[0]
    if not first.wait_for((place / "sign").is_file):
        return "new", [*finish(children), "the first did not begin"]
    second = lab.start(KINDS["kd"], place, resume=number > 1)[0]
    status, said = second.wait(), _last_line([second])
    first.kill(signal.SIGCONT)
    problems = []
    if status != 1 or "is in use by process" not in said:
        problems = [f"the second: exit status {status}: {said[:300]}"]
    problems += finish(children)
    return "resumed" if number > 1 else "new", problems or lab.compare("kd", place)


@trying("clock jump", "noisy labels", 4)
def clocks(lab, place, random, number):
    """The clock of the second part is a day behind, or ahead, or jumps within the first part."""
    name, day = "noisy labels", 86400
    if number < 2:
        problems = cut_off(lab, name, place)
        shift = (-day, day)[number]
        children = lab.start(KINDS[name], place, True, lambda rank: _set_clock(shift, 0))
        how = f"{shift:+d} s before it goes on"
    else:
        problems, calls = [], random.randrange(100, 400)
        shift = (-day, day)[number - 2]
        children = lab.start(KINDS[name], place, prepare=lambda rank: _set_clock(shift, calls))
        how = f"{shift:+d} s within"
    return how, problems or finish(children) or lab.compare(name, place)


def _set_clock(shift, calls):
    """Let the clock jump after some looks at it."""
    now, local, seen = time.time, time.localtime, [0]

    def jumped():
        seen[0] += 1
        return now() + (shift if seen[0] > calls else 0)

    time.time = jumped
    time.localtime = lambda seconds=None: local(jumped() if seconds is None else seconds)


FAULTS = {
    "checkpoints": (checkpoints, small_files, teachers),
    "caches": (caches,),
    "signals": tuple(preempting(*each) for each in _PREEMPTED),
    "disk": (full_disk, read_only),
    "folder": (two_runs,),
    "clock": (clocks,),
    "torchrun": (dead_rank, dead_launcher),
}
