"""Products that are broken on purpose: for each a try that must find it."""

import zipfile

from fault_campaign import sabotage
from fault_campaign.faults import cut_off, two_runs
from fault_campaign.lab import checkpoint_named


def _random_states(lab, place):
    return lab.go_on("plain", place)


def _flipped(lab, place):
    path = place / f"run/iter_{checkpoint_named(place)}.pth"
    with zipfile.ZipFile(path) as archive:
        tensors = [member for member in archive.infolist() if "/data/" in member.filename]
    largest = max(tensors, key=lambda member: member.file_size)
    content = bytearray(path.read_bytes())
    # Within a weight: elsewhere the bit may lie in text that nobody reads.
    names = int.from_bytes(content[largest.header_offset + 26 :][:2], "little")
    extra = int.from_bytes(content[largest.header_offset + 28 :][:2], "little")
    content[largest.header_offset + 30 + names + extra + largest.file_size // 2] ^= 64
    path.write_bytes(content)
    return lab.go_on("plain", place)


def _half_written(lab, place):
    return lab.go_on("teachers first", place)


# By the way in which it is broken: the run, where it is killed and what is done then.
_CONTROLS = {
    sabotage.no_random_states: ("plain", "after", "last_checkpoint", _random_states),
    sabotage.unseen_damage: ("plain", "after", "last_checkpoint", _flipped),
    sabotage.in_place: ("teachers first", "within", "final.pth", _half_written),
}


def find_all(lab, random, say):
    """Break the product in each way and say which ways were not found."""
    unfound = []
    for broken, (name, at, file, go_on) in _CONTROLS.items():
        lab.whole(name)
        lab.sabotage = broken
        place = lab.fresh(name)
        count = 4 if file == "last_checkpoint" else 1
        problems = cut_off(lab, name, place, count, file, at)
        if problems:
            raise RuntimeError(f"{broken.__name__}: {problems}")
        unfound += _tell(say, broken, go_on(lab, place))
    lab.whole("kd")
    lab.sabotage = sabotage.no_lock
    row = two_runs(lab, random, lambda text: None, tries=1)
    lab.sabotage = None
    return unfound + _tell(say, sabotage.no_lock, list(row.problems.values()))


def _tell(say, broken, problems):
    say(f"broken on purpose, {broken.__name__}: {problems[0] if problems else 'NOT FOUND'}")
    return [] if problems else [broken.__name__]
