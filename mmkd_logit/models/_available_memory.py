"""How much memory this process may still take."""

from pathlib import Path


def available_memory() -> int | None:
    """Return the bytes left on this machine, or in the container; None where nobody says."""
    found = [_of_the_machine(), _of_the_container()]
    return min((number for number in found if number is not None), default=None)


def _of_the_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _of_the_container() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        lines = (folder / "memory.stat").read_text().splitlines()
        # Pages of files count as used and are given up when memory is wanted.
        files = next((int(x.split()[1]) for x in lines if x.startswith("inactive_file ")), 0)
    except (OSError, ValueError, IndexError):  # no limit reads "max"
        return None
    return max(0, limit - used + files)
