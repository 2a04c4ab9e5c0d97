"""Runs that are cut off and resumed equal those that are not, bit for bit."""

import pytest
from cut_off import KINDS, train, train_in_parts
from same_runs import assert_same_runs


@pytest.mark.parametrize("kind", KINDS)
def test_cut_off_within_an_epoch_and_at_its_end(tmp_path, kind):
    """Iteration 7 is done twice, the first time from the checkpoint within an epoch."""
    train(KINDS[kind](tmp_path / "whole"))
    train_in_parts(lambda: KINDS[kind](tmp_path / "parts"), 7, 9)
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")
