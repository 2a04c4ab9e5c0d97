"""SIGKILL, inside a write and at any moment."""

import re
import time
from pathlib import Path

from fault_campaign.children import finish, pausing_at
from fault_campaign.kinds import KINDS
from fault_campaign.lab import checkpoint_named, resumed_at
from fault_campaign.trying import trying

_OTHERS_KNOW = 60  # seconds after which a process must have ended that waits for a dead one
_FEWEST = 0.15  # of the whole CPU time: until processes have met, only a launcher sees one die
_ENDED = "ended before"
_TOO_LATE = "ended well before the kill"


def killing(name, tries):
    """Kill runs of a kind, have them go on, and compare their ends.

    Every other kill comes inside a write: half of the bytes are there, or all of them under
    another name, or the file has its name and nothing is done of what follows. Every third run is
    killed once more when it goes on.
    """

    @trying("SIGKILL", name, tries)
    def kill(lab, place, random, number):
        if number % 2 == 0:
            how, problems = _kill_inside(lab, name, place, random)
        else:
            how, problems = _kill_sometime(lab, name, place, random)
        named = checkpoint_named(place)
        if number % 3 == 2 and not problems:
            more, problems = _kill_sometime(lab, name, place, random, resume=True)
            how, named = f"{how}, then {more}", None
            if more == _ENDED:  # asked again, a finished run adds a row
                return how, problems or lab.compare(name, place)
        problems = problems or lab.go_on(name, place)
        if not problems and named is not None and KINDS[name].folders == ("run",):
            at = resumed_at(place)
            if at != named:
                problems = [f"silently lost: went on at iteration {at} with iter_{named}.pth there"]
        return how, problems

    return kill


def _kill_inside(lab, name, place, random):
    """Each kind of file and each moment of its write is as likely."""
    groups = {}
    for (at, file), count in sorted(lab.whole(name).writes.items()):
        group = groups.setdefault((at, re.match("[a-z]*", file)[0]), [])  # iter_2.pth, iter_4.pth
        group += [(at, file, number + 1) for number in range(count)]
    event = random.choice(random.choice(list(groups.values())))
    sign = Path(place, "sign")
    children = lab.start(KINDS[name], place, prepare=pausing_at(*event, sign))
    how = f"killed {event[0]} write {event[2]} of {event[1]}"
    if not children[0].wait_for(sign.is_file):
        return how, [f"the write never came: {finish(children)}"]
    return how, _kill(children, 0)


def _kill_sometime(lab, name, place, random, resume=False):
    """Kill a run after a part of the CPU time of the whole one, from outside."""
    part = random.uniform(_FEWEST, 0.9)
    for _ in range(8):
        target = part * lab.whole(name).cpu
        children = lab.start(KINDS[name], place, resume)
        if children[0].wait_for_cpu(target):
            rank = len(children) - 1 if int(part * 1000) % 2 else 0
            problems = _kill(children, rank)
            if problems != [_TOO_LATE]:
                return f"killed after {target:.2f} s of CPU", problems
        problems = finish(children)
        if problems or resume:
            return _ENDED, problems
        lab.renew(name, place)  # it was faster this time
        part *= 0.7
    return _ENDED, ["it ends too fast to be killed"]


def _kill(children, rank):
    """Kill one process; those that wait for it must end by themselves, and not with status 0.

    Nobody waits for the first process any more when it writes the row of results.
    """
    waiting = [child for child in children if child is not children[rank] and child.ended() is None]
    if not children[rank].kill():
        status = children[rank].status
        return [_TOO_LATE if status == 0 else f"ended with {status} before the kill"]
    problems = []
    for child in waiting:
        child.since = time.monotonic()
        status = child.wait(_OTHERS_KNOW)
        if status is None:
            problems.append(f"hung: goes on {_OTHERS_KNOW} s after process {rank} died")
        elif status == 0 and not Path(child.log.parent, "run/final.pth").is_file():
            problems.append(f"ended well although process {rank} died")
    return problems
