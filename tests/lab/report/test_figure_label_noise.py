import math

import numpy as np
import pytest
from lab.report.records import TOP1, Records
from matplotlib.colors import to_hex

from mmkd_logit.lab.report import style
from mmkd_logit.lab.report.figures.label_noise import draw

TAUS = (0.5, 1, 20, "inf")
CLEAN = ("train top-1 (%), clean labels", "train.accuracy/clean_top1")


def noisy(tmp_path, seeds=2, rates=(0.4, 0.6), taus=TAUS, metrics=(TOP1,), noise=True, **changed):
    records = Records(tmp_path, name="noisy-label", metrics=metrics)

    def add(name, base, column, rate, **how):
        values = [{key: base + seed for _, key in metrics} for seed in range(seeds)]
        row = f"symmetric {rate}"
        values = changed.get(name, values)
        records.add(name, values, row=row, column=column, rate=rate if noise else None, **how)

    for rate in rates:
        base = 80 - 50 * rate
        add(f"r{rate}", base - 5, "teacher", rate, kind="ce")
        add(f"r{rate}_ce", base - 6, "CE", rate, kind="ce")
        for place, tau in enumerate(taus):
            add(f"r{rate}_t{tau}", base - place, f"tau {tau}", rate, tau=tau)
        add(f"r{rate}_mse", base - 7, "MSE", rate, kind="mse")
        for run in records.runs:
            if run["name"].startswith(f"r{rate}_") and run["method"]["kind"] != "ce":
                run["teachers"] = [f"work_dirs/r{rate}/seed{run['seed']}"]
    return records


def curves(axes):
    """Solid parts of the curves, by their label."""
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def markers(axes, look):
    """Where a method is marked, from left to right and from below."""
    found = [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if line.get_marker() == look.marker and to_hex(line.get_color()) == look.color
    ]
    return np.array(sorted(found))


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    """The figure of two seeds by each method."""
    (found,) = draw(noisy(tmp_path_factory.mktemp("made")).experiment())
    return found


def test_draws_the_means_against_tau(drawing):
    (axes,) = drawing.figure.axes
    found = curves(axes)
    assert list(found) == ["symmetric 0.4", "symmetric 0.6"]
    for label, base in (("symmetric 0.4", 60.5), ("symmetric 0.6", 50.5)):
        x, y = found[label].get_data()
        assert list(x) == [0.5, 1, 20]  # infinity is beyond the break
        assert list(y) == pytest.approx([base, base - 1, base - 2])
    assert axes.get_xscale() == "log"
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels == ["0.5", "1", "20", "∞", "MSE", "CE", "teacher"]
    assert [text.get_text() for text in axes.texts] == ["//"]


def test_infinity_lies_beyond_a_break_and_what_has_no_tau_beyond_it(drawing):
    (axes,) = drawing.figure.axes
    ticks = axes.get_xticks()
    assert list(ticks) == sorted(ticks)
    assert 20 < axes.texts[0].xy[0] < ticks[3]
    infinite = markers(axes, style.look_of(dict(kind="kl", tau="inf")))
    assert infinite == pytest.approx(np.array([(ticks[3], 47.5), (ticks[3], 57.5)]))
    assert markers(axes, style.MSE) == pytest.approx(np.array([(ticks[4], 43.5), (ticks[4], 53.5)]))
    assert markers(axes, style.CE) == pytest.approx(np.array([(ticks[5], 44.5), (ticks[5], 54.5)]))
    assert markers(axes, style.TEACHER) == pytest.approx(
        np.array([(ticks[6], 45.5), (ticks[6], 55.5)])
    )


def test_zero_lies_before_a_break(tmp_path):
    (drawing,) = draw(noisy(tmp_path, taus=(0, 0.5, 1, "inf")).experiment())
    (axes,) = drawing.figure.axes
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert labels[:4] == ["0", "0.5", "1", "∞"]
    assert [text.get_text() for text in axes.texts] == ["//", "//"]
    assert 0 < axes.get_xticks()[0] < axes.texts[0].xy[0] < 0.5


def test_bands_are_one_standard_deviation(tmp_path):
    (drawing,) = draw(noisy(tmp_path, rates=(0.4,)).experiment())
    (axes,) = drawing.figure.axes
    (band,) = axes.collections[:1]
    corners = band.get_paths()[0].vertices
    at_one = corners[np.isclose(corners[:, 0], 1), 1]
    half = math.sqrt(0.5)
    assert [min(at_one), max(at_one)] == pytest.approx([59.5 - half, 59.5 + half])
    assert "± one sample standard deviation" in drawing.caption


def test_one_seed_has_no_band(tmp_path):
    (drawing,) = draw(noisy(tmp_path, seeds=1).experiment())
    (axes,) = drawing.figure.axes
    assert not any(len(path.vertices) for c in axes.collections for path in c.get_paths())
    assert "n = 1 seed, so no spread" in drawing.caption
    assert "±" not in drawing.caption


def test_a_panel_for_each_metric(tmp_path):
    (drawing,) = draw(noisy(tmp_path, metrics=(TOP1, CLEAN)).experiment())
    assert [axes.get_title() for axes in drawing.figure.axes] == [TOP1[0], CLEAN[0]]
    assert set(drawing.numbers) == {TOP1[1], CLEAN[1]}
    drawing.figure.canvas.draw()


def test_failed_and_not_finite_runs_are_gaps(tmp_path):
    changed = {"r0.4_t1": [None, None], "r0.4_t20": [math.nan, 50.0], "r0.6_mse": [None, None]}
    (drawing,) = draw(noisy(tmp_path, **changed).experiment())
    (axes,) = drawing.figure.axes
    y = curves(axes)["symmetric 0.4"].get_ydata()
    assert np.isfinite(y).tolist() == [True, False, False]
    failed = [n["failed"] for n in drawing.numbers[TOP1[1]] if n.get("tau") == 1]
    assert failed == [2, 0]
    drawing.figure.canvas.draw()


def test_a_curve_for_each_alpha(tmp_path):
    records = noisy(tmp_path, rates=(0.4,))
    for tau, top1 in ((1, 40.0), (20, 41.0)):
        values = [{TOP1[1]: top1}] * 2
        more = dict(row="symmetric 0.4", column=f"tau {tau}, half", rate=0.4)
        records.add(f"r0.4_half_t{tau}", values, tau=tau, alpha=0.5, **more)
    (drawing,) = draw(records.experiment())
    (axes,) = drawing.figure.axes
    found = curves(axes)
    assert list(found) == ["symmetric 0.4, α = 1", "symmetric 0.4, α = 0.5"]
    assert list(found["symmetric 0.4, α = 0.5"].get_ydata()) == [40, 41]
    assert len(found["symmetric 0.4, α = 1"].get_ydata()) == 3
    assert len(markers(axes, style.CE)) == 2


def test_two_students_at_one_tau_are_told(tmp_path):
    records = noisy(tmp_path)
    records.add("other", [50.0, 51.0], row="symmetric 0.4", column="other", rate=0.4, tau=1)
    with pytest.raises(ValueError, match=r"several runs at one tau in .'symmetric 0.4'."):
        draw(records.experiment())


def test_others_are_of_no_noise(tmp_path):
    assert draw(noisy(tmp_path, noise=False).experiment()) == []
    assert draw(noisy(tmp_path, taus=(1,)).experiment()) == []


def test_nothing_finished(tmp_path):
    records = noisy(tmp_path, rates=(0.4,))
    failed = {run["name"]: [None, None] for run in records.runs}
    assert draw(noisy(tmp_path, rates=(0.4,), **failed).experiment()) == []


def test_noises_without_a_label_of_their_own_are_named(tmp_path):
    records = noisy(tmp_path, rates=(0.4,))
    records.places = {name: ["", column] for name, (_, column) in records.places.items()}
    (drawing,) = draw(records.experiment())
    assert list(curves(drawing.figure.axes[0])) == ["symmetric label noise 40 %"]


def test_rates_in_one_row_of_the_table_are_curves_of_their_own(tmp_path):
    records = noisy(tmp_path, taus=(1, 20))
    for name, (_, column) in records.places.items():
        records.places[name] = ["WRN-16-2", f"{name} {column}"]
    (drawing,) = draw(records.experiment())
    labels = [f"WRN-16-2, symmetric label noise {rate} %" for rate in (40, 60)]
    assert list(curves(drawing.figure.axes[0])) == labels
    means = {(each["noise"], each.get("tau")): each["mean"] for each in drawing.numbers[TOP1[1]]}
    assert means[labels[0], 1.0] == 60.5
    assert means[labels[1], 1.0] == 50.5
