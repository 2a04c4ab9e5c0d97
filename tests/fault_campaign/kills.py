"""SIGKILL, inside a write and at any moment."""

import re
import time
from pathlib import Path

from fault_campaign.children import finish, pausing_at
from fault_campaign.kinds import KINDS
from fault_campaign.lab import checkpoint_named, resumed_at
from fault_campaign.tables import Row

_OTHERS_KNOW = 60  # seconds after which a process must have ended that waits for a dead one
_FEWEST = 0.05  # of the whole run's CPU time, before which a kill does not come


def kill_often(lab, name, tries, random, say=print):
    """Kill runs of a kind, have them go on, and compare their ends; return the table's row.

    Every other kill comes inside a write: half of the bytes are there, or all of them under
    another name, or the file has its name and nothing is done of what follows. Every third run is
    killed once more when it goes on.
    """
    row, begin = Row("SIGKILL", name), time.monotonic()
    events = _Events(lab.whole(name).writes, random)
    for number in range(tries):
        place, once = lab.fresh(name), time.monotonic()
        how, problems = (
            _kill_inside(lab, name, place, events.draw())
            if number % 2 == 0
            else _kill_sometime(lab, name, place, random.uniform(_FEWEST, 0.9))
        )
        kills, named = 1, checkpoint_named(place)
        if number % 3 == 2 and not problems:
            more, problems = _kill_sometime(lab, name, place, random.uniform(_FEWEST, 0.9), True)
            kills, how, named = 1 + (more != _ENDED), f"{how}, then {more}", None
        problems = problems or lab.go_on(name, place)
        if not problems and named is not None and KINDS[name].folders == ("run",):
            at = resumed_at(place)
            if at != named:
                problems = [f"silently lost: went on at iteration {at} with iter_{named}.pth there"]
        row.add(how, problems, kills, inside=number % 2 == 0)
        say(
            f"{name}, {number + 1}/{tries}: {how}: {'WRONG' if problems else 'survived'} "
            f"({time.monotonic() - once:.1f} s)"
        )
        if not problems:
            lab.forget(place)
    row.seconds = time.monotonic() - begin
    return row


_ENDED = "ended before"


class _Events:
    """Draws writes, such that each kind of file and each of its moments is as likely."""

    def __init__(self, writes, random):
        self._random = random
        self._groups = {}
        for place, name in sorted(writes):
            group = re.match("[a-z]*", name)[0]  # iter_2.pth and iter_4.pth are alike
            counted = [(place, name, count + 1) for count in range(writes[place, name])]
            self._groups.setdefault((place, group), []).extend(counted)
        self._left = []

    def draw(self):
        if not self._left:
            self._left = sorted(self._groups)
            self._random.shuffle(self._left)
        return self._random.choice(self._groups[self._left.pop()])


def _kill_inside(lab, name, place, event):
    sign = Path(place, "sign")
    children = lab.start(KINDS[name], place, prepare=pausing_at(*event, sign))
    how = f"killed {event[0]} write {event[2]} of {event[1]}"
    if not children[0].wait_for(sign.is_file):
        problems = [text for text in finish(children) if text] or [""]
        return how, [f"the write never came: {problems[0]}"]
    return how, _kill(children, 0)


def _kill_sometime(lab, name, place, part, resume=False):
    """Kill a run after a part of the CPU time of the whole one, from outside."""
    for _ in range(8):
        target = part * lab.whole(name).cpu
        children = lab.start(KINDS[name], place, resume)
        if not children[0].wait_for_cpu(target):
            problems = finish(children)
            if problems or resume:
                return _ENDED, problems
            lab.renew(name, place)  # it was faster this time
            part *= 0.7
            continue
        rank = len(children) - 1 if int(part * 1000) % 2 else 0
        return f"killed after {target:.2f} s of CPU", _kill(children, rank)
    return _ENDED, ["it ends too fast to be killed"]


def _kill(children, rank):
    """Kill one process; those that wait for it must end by themselves, and not well.

    Nobody waits for the first process any more when it writes the row of results.
    """
    waiting = [child for child in children if child is not children[rank] and child.ended() is None]
    if not children[rank].kill():
        return [f"ended with {children[rank].status} before the kill"]
    problems = []
    for child in waiting:
        child.since = time.monotonic()
        status = child.wait(_OTHERS_KNOW)
        if status is None:
            problems.append(f"hung: goes on {_OTHERS_KNOW} s after process {rank} died")
        elif status == 0 and not Path(child.log.parent, "run/final.pth").is_file():
            problems.append(f"ended well although process {rank} died")
    return problems
