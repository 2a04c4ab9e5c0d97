"""Products that are broken on purpose: for each a try that must find it."""

import zipfile

from fault_campaign.faults import cut_off, two_runs
from fault_campaign.lab import checkpoint_named


def in_place(rank):
    """Write files where they are, as ``open`` does, and do not look whether they are whole."""
    from mmkd_logit.utils import files

    files._open_part = lambda target: (target, open(target, "wb"))  # noqa: SIM115
    files._swap = lambda part, target: None
    unseen_damage(rank)


def unseen_damage(rank):
    """Take every checkpoint for whole."""
    from mmkd_logit import checkpoint
    from mmkd_logit.engine import resume, save, train

    for module in (checkpoint, resume, save, train):
        module.why_damaged = lambda path, only_zip=False: None


def no_random_states(rank):
    """Do not put the random states back."""
    from mmkd_logit.engine import resume

    resume.restore_random_states = lambda states: None


def no_lock(rank):
    """Let anybody into a work folder."""
    from mmkd_logit.engine import lock

    lock.fcntl.flock = lambda file, how: None


# By the way in which it is broken: the run, and where it is killed.
_CONTROLS = {
    no_random_states: ("plain", "after", "last_checkpoint", 4),
    unseen_damage: ("plain", "after", "last_checkpoint", 4),
    in_place: ("teachers first", "within", "final.pth", 1),
}


def find_all(lab, random, say):
    """Break the product in each way and say which ways were not found."""
    unfound = []
    for broken, (name, at, file, count) in _CONTROLS.items():
        lab.whole(name)
        lab.sabotage = broken
        place = lab.fresh(name)
        problems = cut_off(lab, name, place, count, file, at)
        if problems:
            raise RuntimeError(f"{broken.__name__}: {problems}")
        if broken is unseen_damage:
            _flip_a_weight(place / f"run/iter_{checkpoint_named(place)}.pth")
        unfound += _report(say, broken, lab.go_on(name, place))
    lab.whole("kd")
    lab.sabotage = no_lock
    row = two_runs(lab, random, lambda text: None, tries=1)
    lab.sabotage = None
    return unfound + _report(say, no_lock, list(row.problems.values()))


def _flip_a_weight(path):
    """Change a bit within the largest tensor: elsewhere it may lie in text that nothing reads."""
    with zipfile.ZipFile(path) as archive:
        tensors = [member for member in archive.infolist() if "/data/" in member.filename]
        largest = max(tensors, key=lambda member: member.file_size)
        begin = path.read_bytes().index(archive.read(largest))
    content = bytearray(path.read_bytes())
    content[begin + largest.file_size // 2] ^= 64
    path.write_bytes(content)


def _report(say, broken, problems):
    say(f"broken on purpose, {broken.__name__}: {problems[0] if problems else 'NOT FOUND'}")
    return [] if problems else [broken.__name__]
