"""The fault campaign in short; the long one is ``python tests/fault_campaign``."""

import json
import sys

import pytest
from processes import HERE, run


@pytest.mark.timeout(900)
def test_runs_survive_and_broken_products_are_found(tmp_path):
    """Killed inside a write and at any moment; and each broken product turns the campaign red."""
    words = ["--seed", "1", "--tries", "2", "--kinds", "plain", "two processes"]
    words += ["--faults", "kills", "--controls", "--json", tmp_path / "table.json"]
    done = run(*map(str, [sys.executable, HERE / "fault_campaign", *words]))
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["run"] for row in table["rows"]] == ["plain", "two processes"]
    for row in table["rows"]:
        assert (row["kills"], row["inside"], row["survived"]) == (2, 1, 2)
    assert table["unfound"] == []
    assert done.stderr.count("broken on purpose, ") == 4
