import math

import pytest
from lab.report.records import TOP1, Records, write_scalars
from matplotlib.colors import to_hex

from mmkd_logit.lab.report import style
from mmkd_logit.lab.report.figures.learning_curves import draw

METHODS = dict(ce=dict(kind="ce"), kl1=dict(tau=1), klinf=dict(tau="inf"), mse=dict(kind="mse"))


def lines_of(level, kd, epochs=3):
    lines = []
    for epoch in range(1, epochs + 1):
        for part, inner in enumerate((5, 10), 1):
            line = dict(step=12 * (epoch - 1) + inner, epoch=epoch, batch_top1=level + epoch - part)
            lines.append(dict(line, kd=kd / epoch * part, loss_kd=0.1 * kd) if kd else line)
        lines.append({"accuracy/top1": level + 10 * epoch, "step": epoch})
    return lines


def table(tmp_path, rows=("A",), seeds=2, methods=METHODS, logged=True):
    records = Records(tmp_path)
    for row in rows:
        for place, (name, how) in enumerate(methods.items()):
            values = [50.0 + place + seed for seed in range(seeds)]
            records.add(f"{row}_{name}", values, row=row, column=name, **how)
            for seed in range(seeds if logged else 0):
                kd = 0 if how.get("kind") == "ce" else 2.0 + place
                folder = records.work_dir(f"{row}_{name}", seed)
                write_scalars(folder, lines_of(20 + place + seed, kd))
    return records


def line_of(axes, look):
    (line,) = [
        line
        for line in axes.lines
        if len(line.get_xdata()) > 1
        and line.get_marker() == look.marker
        and to_hex(line.get_color()) == look.color
    ]
    return [list(values) for values in line.get_data()]


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    """The figure of two seeds by each method."""
    (found,) = draw(table(tmp_path_factory.mktemp("made")).experiment())
    return found


def test_draws_the_means_over_epochs(drawing):
    train, val, kd = drawing.figure.axes
    for place, how in enumerate(METHODS.values()):
        look = style.look_of(dict(dict(kind="kl"), **how))
        # The last line of an epoch tells of all of it.
        assert line_of(train, look) == [[1, 2, 3], [18.5 + place + e for e in (1, 2, 3)]]
        assert line_of(val, look) == [[1, 2, 3], [20.5 + place + 10 * e for e in (1, 2, 3)]]
    # The distillation loss is averaged over an epoch's lines.
    assert line_of(kd, style.MSE)[1] == pytest.approx([7.5, 3.75, 2.5])
    assert kd.get_yscale() == "log"
    assert kd.get_xlabel() == "epoch"
    assert drawing.numbers["kd"]["MSE"]["mean"] == [7.5, 3.75, 2.5]
    assert "CE" not in drawing.numbers["kd"]
    (legend,) = drawing.figure.legends
    assert {t.get_text() for t in legend.get_texts()} == {"CE", "KL τ = 1", "KL τ = ∞", "MSE"}


def test_marks_the_test_at_the_end(drawing):
    assert drawing.numbers["test"] == {
        "CE": 50.5, "KL τ = 1": 51.5, "KL τ = ∞": 52.5, "MSE": 53.5
    }  # fmt: skip
    val = drawing.figure.axes[1]
    open_ones = [line for line in val.lines if line.get_markerfacecolor() == "none"]
    assert sorted(float(line.get_ydata()[0]) for line in open_ones) == [50.5, 51.5, 52.5, 53.5]
    assert {float(line.get_xdata()[0]) for line in open_ones} == {3.0}
    assert "open: test" in val.get_title()


def test_says_what_it_was_drawn_from(drawing):
    assert drawing.sources[0] == "results/digits/table1.json"
    assert len(drawing.sources) == 1 + 2 * len(METHODS)
    assert "n = 2 seeds; 3 epochs" in drawing.caption
    assert "± one sample standard deviation" in drawing.caption


def test_one_figure_for_each_row(tmp_path):
    drawings = draw(table(tmp_path, rows=("A", "B"), seeds=1).experiment())
    assert [drawing.title for drawing in drawings] == ["Learning curves: A", "Learning curves: B"]
    assert all("n = 1 seed, so no spread" in drawing.caption for drawing in drawings)
    assert not any("±" in drawing.caption for drawing in drawings)


def test_a_list_is_one_figure_and_what_is_alike_is_told_apart(tmp_path):
    records = Records(tmp_path, title="Born again")
    for number in range(3):
        name = f"g{number}"
        records.add(name, [50.0], row=f"generation {number}", tau=3)
        write_scalars(records.work_dir(name), lines_of(20 + number, 1.0))
    (drawing,) = draw(records.experiment())
    (legend,) = drawing.figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["generation 0", "generation 1", "generation 2"]
    assert len({line.get_color() for line in legend.get_lines()}) == 3


def test_a_reference_without_teacher_stands_beside_all(tmp_path):
    records = table(tmp_path, rows=("A", "B"), methods=dict(kl1=dict(tau=1)))
    records.add("ce", [50.0], row="no teacher", column="CE", kind="ce")
    write_scalars(records.work_dir("ce"), lines_of(20, 0))
    drawings = draw(records.experiment())
    assert len(drawings) == 2
    assert all("CE" in drawing.numbers["batch_top1"] for drawing in drawings)


def test_teachers_look_like_teachers(tmp_path):
    records = table(tmp_path, methods=dict(ce=dict(kind="ce"), kl1=dict(tau=1)), seeds=1)
    records.add("t", [50.0], row="A", column="teacher", kind="ce")
    write_scalars(records.work_dir("t"), lines_of(30, 0))
    records.runs[1]["teachers"] = ["work_dirs/t/seed0"]
    (drawing,) = draw(records.experiment())
    assert set(drawing.numbers["batch_top1"]) == {"teacher", "CE", "KL τ = 1"}
    assert line_of(drawing.figure.axes[0], style.TEACHER)[1][0] == 29


def test_of_a_grid_the_largest_alpha_is_drawn(tmp_path):
    records = Records(tmp_path, name="grid")
    for tau in (1, 3):
        for alpha in (0.1, 0.9):
            name = f"a{alpha}_t{tau}"
            records.add(name, [50.0], row=f"A -> B, tau {tau}", column=f"alpha {alpha}", tau=tau,
                        alpha=alpha)  # fmt: skip
            write_scalars(records.work_dir(name), lines_of(100 * alpha, 1.0))
    (drawing,) = draw(records.experiment())
    assert drawing.title == "Learning curves: A -> B"
    first = {label: curve["mean"][0] for label, curve in drawing.numbers["batch_top1"].items()}
    assert first == {"KL τ = 1": 89.0, "KL τ = 3": 89.0}
    assert "Of all α, that of 0.9." in drawing.caption


def test_failed_runs_and_runs_without_scalars_are_left_out(tmp_path):
    records = table(tmp_path)
    records.runs[0]["row"] = None
    records.add("A_kl3", [50.0], row="A", column="tau 3", tau=3)
    records.add("A_kl5", [None], row="A", column="tau 5", tau=5)
    (drawing,) = draw(records.experiment())
    assert drawing.numbers["batch_top1"]["CE"]["n"] == 1
    assert "KL τ = 3" not in drawing.numbers["batch_top1"]
    assert "n = 1 to 2 seeds" in drawing.caption


def test_a_loss_that_is_no_number_is_a_gap(tmp_path):
    records = table(tmp_path, seeds=1)
    lines = lines_of(20, 1.0)
    lines[3]["kd"] = math.nan
    write_scalars(records.work_dir("A_mse"), lines)
    (drawing,) = draw(records.experiment())
    values = drawing.numbers["kd"]["MSE"]["mean"]
    assert [math.isnan(value) for value in values] == [False, True, False]
    drawing.figure.canvas.draw()


def test_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"none of the 8 finished runs left .*tools/train.py"):
        draw(table(tmp_path, logged=False).experiment())
    experiment = table(tmp_path).experiment()
    path = tmp_path / experiment.record["runs"][0]["files"]["scalars"][0]
    path.unlink()
    with pytest.raises(FileNotFoundError, match="do not exist"):
        draw(experiment)


def test_nothing_finished_is_nothing_to_draw(tmp_path):
    records = Records(tmp_path)
    records.add("a", [None], row="A", column="tau 1", tau=1)
    assert draw(records.experiment()) == []
    assert TOP1[1] in records.experiment().record["metrics"][0]["key"]
