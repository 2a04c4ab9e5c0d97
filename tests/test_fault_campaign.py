"""The fault campaign in short; the long one is ``python tests/fault_campaign``."""

import pytest
from fault_campaign.__main__ import main
from processes import Child


@pytest.mark.timeout(900)
def test_runs_survive_and_broken_products_are_found():
    """Killed inside a write and at any moment; and each broken product turns the campaign red."""
    words = ["--seed", "1", "--tries", "2", "--kinds", "plain", "--faults", "kills", "--controls"]
    campaign = Child(main, words)
    assert campaign.wait() == 0, campaign.said[-6000:]
    assert "| SIGKILL | plain | 2 | 2 |" in campaign.said
    assert campaign.said.count("broken on purpose, ") == 4
