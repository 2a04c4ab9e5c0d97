import math

import numpy as np
import pytest
from lab.report.records import write_scalars

from mmkd_logit.lab.report.curves import by_epoch, by_iteration, over_seeds
from mmkd_logit.lab.report.data import read_scalars


def log_of(tmp_path, per_epoch=10, every=4, epochs=3, name="x", value=lambda step: step):
    lines = []
    for epoch in range(1, epochs + 1):
        for inner in range(every, per_epoch + 1, every):
            step = (epoch - 1) * per_epoch + inner
            lines.append({name: value(step), "epoch": epoch, "step": step})
        lines.append({"accuracy/top1": 10.0 * epoch, "step": epoch})
    return read_scalars([write_scalars(tmp_path, lines)])


@pytest.mark.parametrize(("per_epoch", "every"), [(10, 4), (391, 100), (15, 15), (7, 1)])
def test_without_their_number_epochs_are_those_of_the_log(tmp_path, per_epoch, every):
    scalars = log_of(tmp_path, per_epoch, every, epochs=20)
    found = by_iteration(scalars, "x", None)
    for place, step in found.items():
        assert math.ceil(place) == math.ceil(step / per_epoch)
        assert abs(place - step / per_epoch) < every / per_epoch
    assert list(found) == sorted(found)


def test_a_log_without_epochs_says_so(tmp_path):
    scalars = read_scalars([write_scalars(tmp_path, [dict(step=4, x=1.0)])])
    with pytest.raises(ValueError, match="lack 'epoch'"):
        by_epoch(scalars, "x")
    mixed = [dict(step=4, x=1.0, epoch=1), dict(step=8, x=1.0)]
    scalars = read_scalars([write_scalars(tmp_path / "b", mixed)])
    with pytest.raises(ValueError, match="lack 'epoch'"):
        by_iteration(scalars, "x", 10)


def test_seeds_are_averaged_where_all_have_a_value():
    curve = over_seeds([{1: 1.0, 2: 2.0, 3: 5.0}, {1: 3.0, 2: 6.0}, {}])
    assert curve.epochs.tolist() == [1, 2]
    assert curve.mean.tolist() == [2, 4]
    assert curve.std == pytest.approx([math.sqrt(2), math.sqrt(8)])
    assert curve.n == 2


def test_one_seed_has_no_spread_and_none_no_curve():
    curve = over_seeds([{1.5: 3.0}])
    assert (curve.epochs.tolist(), curve.mean.tolist(), curve.n) == ([1.5], [3.0], 1)
    assert np.isnan(curve.std).all()
    assert over_seeds([]) is over_seeds([{}]) is over_seeds([{1: 1.0}, {2: 1.0}]) is None


def test_what_is_no_number_is_a_gap():
    curve = over_seeds([{1: 1.0, 2: math.nan, 3: math.inf}, {1: 3.0, 2: 1.0, 3: 1.0}])
    assert np.isnan(curve.mean).tolist() == [False, True, True]
    assert np.isnan(curve.std).tolist() == [False, True, True]
