"""The fault campaign in short; the long one is ``python tests/fault_campaign``."""

import sys

import pytest
from processes import HERE, run


@pytest.mark.timeout(900)
def test_runs_survive_and_broken_products_are_found():
    """Killed inside a write and at any moment; and each broken product turns the campaign red."""
    words = ["--seed", "1", "--tries", "2", "--kinds", "plain", "two processes"]
    done = run(sys.executable, HERE / "fault_campaign", *words, "--faults", "kills", "--controls")
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    for kind in ("plain", "two processes"):
        assert f"| SIGKILL | {kind} | 2 | 2 |" in done.stdout
    assert done.stderr.count("broken on purpose, ") == 4
