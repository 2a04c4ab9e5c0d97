"""Figures of dumped logits: what is drawn, read back from the axes, is what the dumps hold."""

import numpy as np
import pytest
from dump_records import METHODS, arrays_of, experiment_of, runs_of, whole_experiment, write_dump
from matplotlib.patches import StepPatch
from matplotlib.text import Text
from scipy.special import softmax
from scipy.stats import gaussian_kde

from mmkd_logit.lab.report.densities import bandwidth
from mmkd_logit.lab.report.figures import calibration as figure_calibration
from mmkd_logit.lab.report.figures import distances as figure_distances
from mmkd_logit.lab.report.figures import logit_sums as figure_logit_sums
from mmkd_logit.lab.report.figures import templates as figure_templates
from mmkd_logit.lab.report.figures.templates import elongation, spread, template_plane
from mmkd_logit.lab.report.style import CLASSES, mean_text, style

PARTS = [figure_logit_sums, figure_distances, figure_templates, figure_calibration]
NAMES = ["teacher", "CE", "KL τ = 1", "KL τ = 3", "KL τ = 5", "KL τ = 20", "KL τ = ∞", "MSE"]


def method_of(name):
    """What the dumps' builder calls a row; None for the teacher."""
    return dict(zip(NAMES, (None, *METHODS), strict=True))[name]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """All figures of two seeds by every method, with both splits."""
    experiment = whole_experiment(tmp_path_factory.mktemp("seeds"), seeds=(0, 1))
    with style():
        return {part: part.draw(experiment) for part in PARTS}


def rows_of(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def ticks_of(axes):
    """The medians, by row."""
    ticks = [
        line for line in axes.lines
        if line.get_color() == "black" and len(set(line.get_xdata())) == 1
    ]  # fmt: skip
    return {round(-line.get_ydata()[0]): line.get_xdata()[0] for line in ticks}


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def pooled(seeds, split, measure, name):
    """Values of a row over the seeds, computed from the arrays that were dumped."""
    return np.concatenate([measure(arrays_of(method_of(name), s, split), s) for s in seeds])


def test_sums_are_those_of_the_dumps(drawn):
    (drawing,) = drawn[figure_logit_sums]
    left, right = drawing.figure.axes
    assert rows_of(left) == NAMES

    def total(arrays, seed):
        return arrays["logits"].sum(1, dtype=np.float64)

    for axes, change, key in ((left, np.abs, "magnitude"), (right, np.asarray, "signed")):
        outlines = [patch for patch in axes.patches if isinstance(patch, StepPatch)]
        assert len(outlines) == 2 * len(NAMES)  # a filled one and its line
        for row, name in enumerate(NAMES):
            values = change(pooled((0, 1), "train", total, name))
            heights, edges, base = outlines[2 * row + 1].get_data()
            counts = np.histogram(values, edges)[0]
            np.testing.assert_allclose((heights + row) / (heights + row).max(),
                                       counts / counts.max(), atol=1e-9)  # fmt: skip
            assert base == -row
            assert ticks_of(axes)[row] == pytest.approx(np.median(values))
            found = drawing.numbers[key][name]
            assert found["pooled"]["median"] == pytest.approx(np.median(values))
            assert found["pooled"]["n"] == 120
            own = change(total(arrays_of(method_of(name), 1, "train"), 1))
            assert found["seeds"][1]["mean"] == pytest.approx(own.mean())
        assert edges[0] == (0 if key == "magnitude" else right.get_xlim()[0])
    assert "Training set, n = 60 samples without augmentation" in drawing.caption
    assert "2 seeds (0, 1), pooled; 20 epochs; last epoch, nothing selected" in drawing.caption
    assert drawing.name == "cpu-table1-logit-sums"
    assert len(drawing.sources) == 2 * len(METHODS)


def test_distances_are_those_of_the_dumps(drawn):
    (drawing,) = drawn[figure_distances]
    left, right = drawing.figure.axes

    def apart(arrays, seed):
        taught = arrays_of("mse", seed, "train")["teacher_logits"]  # that of the same seed
        return np.linalg.norm(arrays["logits"].astype(float) - taught, axis=1)

    def length(arrays, seed):
        return np.linalg.norm(arrays["prelogits"].astype(float), axis=1)

    for axes, measure, key in ((left, apart, "distance"), (right, length, "prelogit_norm")):
        curves = [line for line in axes.lines if len(line.get_xdata()) > 2]
        names = NAMES[1:] if key == "distance" else NAMES
        assert list(drawing.numbers[key]) == names
        for curve, name in zip(curves, names, strict=True):
            values, row = pooled((0, 1), "train", measure, name), NAMES.index(name)
            points, heights = curve.get_xdata(), curve.get_ydata() + row
            kernels = gaussian_kde(values, bandwidth(values) / np.std(values, ddof=1))
            expected = kernels(points) + kernels(-points)
            np.testing.assert_allclose(
                heights / heights.max(), expected / expected.max(), atol=0.01
            )
            assert ticks_of(axes)[row] == pytest.approx(np.median(values), rel=1e-6)
            for seed in (0, 1):
                own = measure(arrays_of(method_of(name), seed, "train"), seed)
                found = drawing.numbers[key][name]["seeds"][seed]
                assert found["mean"] == pytest.approx(own.mean(), rel=1e-6)
                assert found["n"] == 60
    assert "‖u − v‖₂" in left.get_xlabel()


def points_in(axes):
    """The drawn points of each class."""
    return [
        np.array(line.get_data()).T for line in axes.lines
        if line.get_marker() in {marker for _, marker in CLASSES}
    ]  # fmt: skip


def panels_of(drawing):
    """By split, by name."""
    return {
        part.get_suptitle(): {axes.get_title(loc="left"): axes for axes in part.axes}
        for part in drawing.figure.subfigs
    }


def test_templates_are_those_of_the_dumps(drawn):
    (drawing,) = drawn[figure_templates]
    panels = panels_of(drawing)
    assert list(panels) == ["Training set", "Test set"]
    assert drawing.numbers["classes"] == {0: "class 0", 1: "class 1", 2: "class 2"}
    for head, split in (("Training set", "train"), ("Test set", "test")):
        assert [name for name, axes in panels[head].items() if axes.get_visible()] == NAMES
        for name in NAMES:
            axes, cohesion = panels[head][name], drawing.numbers[split][name]
            for seed in (0, 1):
                arrays = arrays_of(method_of(name), seed, split)
                chosen = arrays["clean_label"] < 3
                points = template_plane(arrays["weight"][:3]).project(arrays["prelogits"][chosen])
                groups = arrays["clean_label"][chosen]
                assert cohesion[seed] == dict(
                    spread=pytest.approx(spread(points, groups)),
                    elongation=pytest.approx(elongation(points, groups)),
                    n=len(points),
                )
                if seed == 0:
                    for group, drawn in enumerate(points_in(axes)):
                        np.testing.assert_allclose(drawn, points[groups == group])
            values = [cohesion[seed]["spread"] for seed in (0, 1)]
            assert axes.get_xlabel().startswith(f"spread {mean_text(values)}\n")
            assert axes.get_aspect() == 1
            assert axes.get_xlim() == panels["Training set"][name].get_xlim()
    legend = drawing.figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["class 0", "class 1", "class 2"]
    assert "the points are of seed 0" in drawing.caption


def test_under_label_noise(tmp_path):
    """Templates show the classes that samples are of, calibration what they are labelled."""
    experiment = whole_experiment(tmp_path, methods=("ce", "mse"), splits=("train",))
    clean = arrays_of("mse", 0, "train")["clean_label"]
    label = np.full_like(clean, 3)
    for run in experiment.record["runs"][1:]:
        arrays = {**arrays_of(run["name"], 0, "train"), "label": label}
        write_dump(tmp_path, run, "train", arrays)
    (drawing,) = figure_templates.draw(experiment)
    for name in ("teacher", "CE", "MSE"):
        arrays = arrays_of(method_of(name), 0, "train")
        plane = template_plane(arrays["weight"][:3])
        points, groups = plane.project(arrays["prelogits"][clean < 3]), clean[clean < 3]
        found = drawing.numbers["train"][name][0]
        assert found["spread"] == pytest.approx(spread(points, groups))
        assert found["n"] == len(points)
    for drawing, key in zip(
        figure_calibration.draw(experiment), ("tld", "reliability"), strict=True
    ):
        for name in ("teacher", "CE", "MSE"):
            logits = arrays_of(method_of(name), 0, "train")["logits"].astype(float)
            found = drawing.numbers["train"][name]
            if key == "tld":
                expected = np.mean(logits[:, 3] - logits[:, :3].max(1))
                assert found["pooled"]["mean"] == pytest.approx(expected, rel=1e-6)
            else:
                right = np.nansum(np.array(found[0]["accuracy"], float) * found[0]["count"])
                assert right == pytest.approx((logits.argmax(1) == 3).sum())


def test_large_classes_are_thinned_out_but_counted(tmp_path):
    experiment = whole_experiment(tmp_path, methods=("mse",), splits=("train",), n=2000)
    (drawing,) = figure_templates.draw(experiment)
    (again,) = figure_templates.draw(experiment)
    axes = panels_of(drawing)["Training set"]["MSE"]
    assert [len(points) for points in points_in(axes)] == [300, 300, 300]
    for points, same in zip(
        points_in(axes), points_in(panels_of(again)["Training set"]["MSE"]), strict=True
    ):
        np.testing.assert_array_equal(points, same)
    assert drawing.numbers["train"]["MSE"][0]["n"] > 1400


def test_differences_are_those_of_the_dumps(drawn):
    drawing, _ = drawn[figure_calibration]
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == [
        "Test set",
        "Training set",
    ]

    def difference(arrays, seed):
        rows = zip(arrays["logits"].astype(float), arrays["label"], strict=True)
        return np.array([row[y] - np.delete(row, y).max() for row, y in rows])

    for axes, split in zip(drawing.figure.axes, ("test", "train"), strict=True):
        for row, name in enumerate(NAMES):
            values = pooled((0, 1), split, difference, name)
            assert ticks_of(axes)[row] == pytest.approx(np.median(values), rel=1e-6)
            found = drawing.numbers[split][name]["pooled"]
            assert found["mean"] == pytest.approx(values.mean(), rel=1e-6)


def test_bars_are_those_of_the_dumps(drawn):
    _, drawing = drawn[figure_calibration]
    panels = panels_of(drawing)
    assert list(panels) == ["Test set", "Training set"]
    for head, split in (("Test set", "test"), ("Training set", "train")):
        for name in NAMES:
            axes, numbers = panels[head][name], drawing.numbers[split][name]
            arrays = arrays_of(method_of(name), 0, split)
            scores = softmax(arrays["logits"].astype(float), axis=1)
            sure, right = scores.max(1), scores.argmax(1) == arrays["label"]
            bins = np.minimum(np.ceil(sure * 15).astype(int) - 1, 14)
            bars = [bar for bar in axes.patches if bar.get_width() < 0.5]
            some = np.unique(bins)
            assert len(bars) == 2 * len(some)
            error = 0.0
            accuracies, gaps = np.split(np.array(bars), 2)
            for place, bar, gap in zip(some, accuracies, gaps, strict=True):
                inside = bins == place
                assert bar.get_x() == pytest.approx(place / 15)
                assert bar.get_height() == pytest.approx(right[inside].mean())
                ends = sorted([right[inside].mean(), sure[inside].mean()])
                assert gap.get_y() == pytest.approx(ends[0], abs=1e-6)
                assert gap.get_y() + gap.get_height() == pytest.approx(ends[1], abs=1e-6)
                error += 100 * inside.mean() * (ends[1] - ends[0])
            assert numbers[0]["ece"] == pytest.approx(error, rel=1e-6)
            assert np.sum(numbers[0]["count"]) == len(bins)
            both = [numbers[seed]["ece"] for seed in (0, 1)]
            assert texts_of(axes) == [f"ECE {mean_text(both, ' %')}"]


def test_means_over_seeds():
    assert mean_text([0.1234]) == "0.12"
    assert mean_text([1.0, 2.0], " %") == "1.50 ± 0.71 %"
    assert mean_text([30.0, 20.0, np.nan]) == "25.0 ± 7.1"
    assert mean_text([0.0123]) == "0.012"
    assert mean_text([np.nan]) == mean_text([]) == "–"


@pytest.mark.parametrize("part", PARTS)
def test_nothing_without_dumps(part, tmp_path):
    runs = runs_of(0)
    assert part.draw(experiment_of(tmp_path, runs)) == []
    assert part.draw(experiment_of(tmp_path, [{**run, "row": None} for run in runs])) == []
    assert part.draw(experiment_of(tmp_path, [])) == []


@pytest.mark.parametrize("part", PARTS)
def test_n_and_protocol_are_in_the_picture(part, drawn):
    for drawing in drawn[part]:
        figure = drawing.figure
        figure.set_dpi(200)  # as files have it
        figure.draw_without_rendering()  # lays it out
        (foot,) = (text for text in figure.findobj(Text) if " · " in text.get_text())
        said = " ".join(foot.get_text().split())
        assert said.startswith("cpu/table1 · WRN-28-4 → WRN-16-2 · ")
        assert "training set, n = 60 samples" in said
        assert "2 seeds (0, 1)" in said
        assert said.endswith("epochs; last epoch, nothing selected")
        box = foot.get_window_extent()
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= 0
        above = [axes.get_tightbbox() for axes in figure.axes if axes.get_visible()]
        assert box.y1 <= min(each.y0 for each in above)
        assert not any(box.overlaps(legend.get_window_extent()) for legend in figure.legends)


# What all figures share, of the one that is drawn fastest.


def test_the_test_set_serves_where_nothing_else_was_dumped(tmp_path):
    experiment = whole_experiment(tmp_path, methods=("ce", 3, "mse"), splits=("test",))
    (drawing,) = figure_logit_sums.draw(experiment)
    assert "Test set, n = 30 samples" in drawing.caption
    assert "raining set" not in drawing.caption
    assert drawing.numbers["splits"] == dict(test=[30])


def test_a_figure_for_each_student_network(tmp_path):
    experiment = whole_experiment(tmp_path, methods=("ce", "mse"))
    other = "WideResNetCIFAR depth=16 widen_factor=4"
    teacher = experiment.record["runs"][0]
    more = runs_of(0, ("ce", "mse"), network=other, teacher=teacher)
    for run in more:
        write_dump(tmp_path, run, "train", arrays_of(run["method"]["kind"], 0, "train"))
    runs = [*experiment.record["runs"], *more]
    first, last = figure_logit_sums.draw(experiment_of(tmp_path, runs))
    assert first.name != last.name
    assert first.title.endswith("WRN-28-4 → WRN-16-2")
    assert last.title.endswith("WRN-28-4 → WRN-16-4")
    assert not set(first.sources) & set(last.sources)


def test_what_is_missing_is_told(tmp_path):
    experiment = whole_experiment(tmp_path, methods=("ce", 3, 5, 20, "mse"), seeds=(0, 1))
    for run in experiment.record["runs"]:
        if run["name"] == "kl-t3" or (run["name"], run["seed"]) == ("mse", 1):
            run["row"] = None
        if run["name"] == "kl-t5" or (run["name"], run["seed"]) == ("kl-t20", 1):
            run["files"]["dumps"] = {}
    (drawing,) = figure_logit_sums.draw(experiment)
    for told in (
        "KL τ = 3 did not finish with 2 seeds; MSE did not finish with 1 seed",
        "not dumped: KL τ = 5",
        "KL τ = 20 has 1 of these seeds; MSE has 1 of these seeds",
    ):
        assert told in drawing.caption


def test_without_any_teacher(tmp_path):
    runs = runs_of(0, ("ce", 3, "mse"))
    for run in runs[1:]:
        arrays = arrays_of(run["method"]["tau"] or run["method"]["kind"], 0, "train", teacher=False)
        write_dump(tmp_path, run, "train", arrays)
    (drawing,) = figure_distances.draw(experiment_of(tmp_path, runs))
    assert "o teacher's logits of the same samples for CE, KL τ = 3, MSE" in drawing.caption
    assert drawing.numbers["distance"] == {}
    assert list(drawing.numbers["prelogit_norm"]) == ["CE", "KL τ = 3", "MSE"]


def test_the_teachers_own_file_has_the_pre_logits_that_a_cache_has_not(tmp_path):
    teacher, *students = runs = runs_of(0, ("ce", "mse"))
    for run in students:
        arrays = arrays_of(run["method"]["kind"], 0, "train")
        arrays.pop("teacher_prelogits", None)
        write_dump(tmp_path, run, "train", arrays)
    (drawing,) = figure_distances.draw(experiment_of(tmp_path, runs))
    assert "teacher" not in drawing.numbers["prelogit_norm"]
    own = arrays_of(None, 0, "train")
    write_dump(tmp_path, teacher, "train", own)
    (drawing,) = figure_distances.draw(experiment_of(tmp_path, runs))
    found = drawing.numbers["prelogit_norm"]["teacher"]["pooled"]
    norm = np.linalg.norm(own["prelogits"], axis=1)
    assert found["median"] == pytest.approx(np.median(norm), rel=1e-6)
    write_dump(tmp_path, teacher, "train", {**own, "index": own["index"] + 1})  # other samples
    (drawing,) = figure_distances.draw(experiment_of(tmp_path, runs))
    assert "teacher" not in drawing.numbers["prelogit_norm"]
    rows = np.random.default_rng(0).permutation(len(own["index"]))
    by_sample = [name for name, values in own.items() if len(values) == len(rows)]
    more = {name: np.concatenate([own[name][rows], own[name][:3]]) for name in by_sample}
    more["index"][-3:] += 1000  # the students saw a part of the teacher's samples
    write_dump(tmp_path, teacher, "train", {**own, **more})
    (drawing,) = figure_distances.draw(experiment_of(tmp_path, runs))
    assert drawing.numbers["prelogit_norm"]["teacher"]["pooled"] == found


@pytest.mark.parametrize("part", PARTS)
def test_values_that_are_not_finite_are_told(part, tmp_path):
    """Some of one student's, all of another's; and a single sample of each class."""
    experiment = whole_experiment(tmp_path, methods=("ce", 3, "mse"), splits=("train",))
    for run in experiment.record["runs"][1:3]:
        arrays = arrays_of(run["method"]["tau"] or "ce", 0, "train")
        rows = slice(None) if run["name"] == "ce" else slice(0, 5)
        arrays["logits"][rows, 1] = np.nan
        arrays["prelogits"][rows] = np.inf
        write_dump(tmp_path, run, "train", arrays)
    for drawing in part.draw(experiment):
        if part is figure_templates:
            assert set(drawing.numbers["train"]) == {"teacher", "KL τ = 3", "MSE"}
            assert "too few finite pre-logits" in texts_of(panels_of(drawing)["Training set"]["CE"])
        else:
            assert "60 values by CE are not finite; 5 values by KL τ = 3 are" in drawing.caption


def test_one_sample(tmp_path):
    experiment = whole_experiment(tmp_path, methods=("ce", "mse"), splits=("train",), n=1)
    for part in PARTS:
        for drawing in part.draw(experiment):
            assert "n = 1 samples" in drawing.caption
            drawing.figure.draw_without_rendering()
    assert figure_templates.draw(experiment) == []
