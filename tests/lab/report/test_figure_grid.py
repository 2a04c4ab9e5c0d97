import math

import numpy as np
import pytest
from lab.report.records import TOP1, TRAIN, Records

from mmkd_logit.lab.report.figures.grid import draw

ALPHAS = (0.1, 0.5, 1.0)
TAUS = (1, 20, "inf")


def value(seed, alpha, tau, key=TOP1[1]):
    place = TAUS.index(tau)
    return 70 + 2 * place + alpha * place + 0.5 * seed + (20 if key == TRAIN[1] else 0)


def grid(tmp_path, seeds=2, pairs=("A -> B",), skip=(), paper=True, **changed):
    records = Records(tmp_path, name="grid", metrics=(TOP1, TRAIN))
    for number, pair in enumerate(pairs):
        for tau in reversed(TAUS):
            for alpha in ALPHAS:
                values = [
                    {key: value(s, alpha, tau, key) for key in (TOP1[1], TRAIN[1])}
                    for s in range(seeds)
                ]
                values = changed.get(f"a{alpha}_t{tau}", values)
                theirs = {TOP1[1]: 71.5} if paper and tau == 1 else None
                if (tau, alpha) not in skip:
                    records.add(
                        f"p{number}_a{alpha}_t{tau}",
                        values,
                        row=f"{pair}, tau {tau}",
                        column=f"alpha {alpha}",
                        paper=theirs,
                        tau=tau,
                        alpha=alpha,
                        teacher_config=f"t{number}.py",
                    )
    return records


def maps(drawing):
    """The heat maps of a figure and what is written in them."""
    found = []
    for axes in drawing.figure.axes:
        meshes = [each for each in axes.collections if hasattr(each, "get_coordinates")]
        if axes.get_title() and meshes:
            texts = [text.get_text() for text in axes.texts]
            found.append((axes, np.ma.filled(meshes[0].get_array().astype(float), np.nan), texts))
    return found


def test_draws_the_means_in_their_places(tmp_path):
    (drawing,) = draw(grid(tmp_path).experiment())
    (test, values, texts), (train, train_values, _) = maps(drawing)
    assert (test.get_title(), train.get_title()) == (TOP1[0], TRAIN[0])
    assert [t.get_text() for t in test.get_xticklabels()] == ["0.1", "0.5", "1"]
    assert [t.get_text() for t in test.get_yticklabels()] == ["τ = 1", "τ = 20", "τ = ∞"]
    want = [[value(0.5, alpha, tau) for alpha in ALPHAS] for tau in TAUS]
    assert values == pytest.approx(np.array(want))
    assert train_values == pytest.approx(np.array(want) + 20)
    assert sorted(texts) == sorted(
        [f"{mean:.2f}" for line in want for mean in line]
        + [f"± {0.5 / math.sqrt(2):.2f}"] * 9
        + ["71.50 S"] * 3
    )
    assert drawing.sources == ["results/digits/grid.json"]
    assert "n = 2 seeds; 3 epochs" in drawing.caption
    assert "(S)" in drawing.caption
    (first, *_) = [n for n in drawing.numbers[TOP1[1]] if n["method"] == "KL τ = 1"]
    assert first["mean"] == pytest.approx(value(0.5, first["alpha"], 1))
    assert first["paper"] == 71.5


def test_writing_is_read_on_its_colour(tmp_path):
    (drawing,) = draw(grid(tmp_path).experiment())
    axes, values, _ = maps(drawing)[0]
    inks = {text.get_text(): text.get_color() for text in axes.texts}
    assert inks[f"{np.nanmax(values):.2f}"] == "black"
    assert inks[f"{np.nanmin(values):.2f}"] == "white"


def test_one_figure_for_each_pair(tmp_path):
    drawings = draw(grid(tmp_path, pairs=("A -> B", "C -> B")).experiment())
    assert [d.title.rpartition(": ")[2] for d in drawings] == ["A -> B", "C -> B"]
    assert len({d.name for d in drawings}) == 2
    assert all(len(d.numbers[TOP1[1]]) == 9 for d in drawings)


def test_failed_missing_and_no_number(tmp_path):
    nan = [{TOP1[1]: math.nan, TRAIN[1]: 90.0}]
    changed = {"a0.1_t1": [None, None], "a0.5_t1": nan}
    (drawing,) = draw(grid(tmp_path, skip=[("inf", 1.0)], paper=False, **changed).experiment())
    _, values, texts = maps(drawing)[0]
    assert np.isnan(values[0, :2]).all()
    assert np.isnan(values[2, 2])
    assert np.isfinite(values).sum() == 6
    assert texts.count("failed") == texts.count("NaN") == 1
    assert "Hatched" in drawing.caption
    drawing.figure.canvas.draw()


def test_one_seed_has_no_spread(tmp_path):
    (drawing,) = draw(grid(tmp_path, seeds=1).experiment())
    _, _, texts = maps(drawing)[0]
    assert not any("±" in text for text in texts)
    assert "n = 1 seed, so no spread" in drawing.caption


def test_nothing_finished(tmp_path):
    gone = {f"a{alpha}_t{tau}": [None] for alpha in ALPHAS for tau in TAUS}
    (drawing,) = draw(grid(tmp_path, **gone).experiment())
    assert maps(drawing)[0][2].count("failed") == 9
    drawing.figure.canvas.draw()


def test_other_experiments_are_no_grid(tmp_path):
    records = Records(tmp_path)
    records.add("ce", [70.0], row="A", column="CE", kind="ce")
    for tau in TAUS:
        records.add(f"kl{tau}", [71.0], row="A", column=f"tau {tau}", tau=tau)
    assert draw(records.experiment()) == []


def test_a_place_with_two_runs_is_no_grid(tmp_path):
    records = grid(tmp_path)
    again = [{TOP1[1]: 70.0, TRAIN[1]: 90.0}]
    how = dict(tau=1, alpha=0.1, teacher_config="t0.py")
    records.add("again", again, row="A -> B, tau 1", column="again", **how)
    assert draw(records.experiment()) == []
