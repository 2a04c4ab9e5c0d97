import re

import pytest
from lab.report.records import Records, write_scalars
from matplotlib.colors import to_hex

from mmkd_logit.lab.report import command, style
from mmkd_logit.lab.report.figures.class_sums import draw

METHODS = dict(ce=dict(kind="ce"), kl3=dict(tau=3), mse=dict(kind="mse"))
STEPS = [(epoch, 12 * (epoch - 1) + inner) for epoch in (1, 2, 3) for inner in (5, 10)]


def lines_of(kind, begin=2.0):
    lines = []
    for epoch, step in STEPS:
        predicted = begin * 0.99**step
        off = 0.2 if kind == "mse" else 1e-7
        line = {
            "classifier/sum_norm": predicted * (1 + off),
            "classifier/sum_predicted": predicted,
            "classifier/sum_deviation": off,
            "classifier/bias_sum": -0.1 * epoch if kind == "mse" else 1e-8,
        }
        lines.append(dict(line, epoch=epoch, step=step))
        if step % 12 == 10 and kind != "ce":
            lines.append({"logits/sum_deviation": 5.0 - epoch, "step": epoch})
    return lines


def table(tmp_path, methods=METHODS, seeds=2, write=lines_of):
    records = Records(tmp_path)
    for name, how in methods.items():
        records.add(name, [50.0 + seed for seed in range(seeds)], row="A", column=name, **how)
        for seed in range(seeds):
            found = write(how.get("kind", "kl"), 2.0 + seed)
            write_scalars(records.work_dir(name, seed), found)
    return records


def lines_by_look(axes, look):
    return [
        [list(values) for values in line.get_data()]
        for line in axes.lines
        if len(line.get_xdata()) > 1
        and to_hex(line.get_color()) == look.color
        and line.get_marker() == look.marker
    ]


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    """The figure of two seeds by each method."""
    (found,) = draw(table(tmp_path_factory.mktemp("made")).experiment())
    return found


def test_draws_what_was_measured_beside_what_was_predicted(drawing):
    norm, off, bias, logits = drawing.figure.axes
    epochs = [step / 12 for _, step in STEPS]
    shares = [0.99**step / 0.99**5 for _, step in STEPS]
    ((x, y),) = lines_by_look(norm, style.MSE)
    assert x == pytest.approx(epochs)
    # Seeds began at other norms; each counts as a share of its own.
    assert y == pytest.approx([1.2 * share for share in shares])
    (predicted,) = [line for line in norm.lines if to_hex(line.get_color()) == "#000000"
                    and len(line.get_xdata()) > 1]  # fmt: skip
    assert list(predicted.get_ydata()) == pytest.approx(shares)
    ((_, y),) = lines_by_look(off, style.MSE)
    assert y == pytest.approx([0.2] * 6)
    ((_, y),) = lines_by_look(off, style.CE)
    assert y == pytest.approx([1e-7] * 6)
    assert off.get_yscale() == "log"
    assert off.get_ylim()[0] < 1e-7
    ((_, y),) = lines_by_look(bias, style.MSE)
    assert y == pytest.approx([-0.1, -0.1, -0.2, -0.2, -0.3, -0.3])
    ((x, y),) = lines_by_look(logits, style.MSE)
    assert (x, y) == ([1, 2, 3], [4, 3, 2])
    assert lines_by_look(logits, style.CE) == []


def test_numbers_caption_and_sources(drawing):
    found = drawing.numbers["classifier/sum_deviation"]
    assert found["KL τ = 3"]["mean"] == [1e-7] * 6
    assert found["MSE"]["n"] == 2
    assert "n = 2 seeds; 3 epochs" in drawing.caption
    assert len(drawing.sources) == 7


def test_only_where_a_loss_sees_the_sum_and_another_does_not(tmp_path):
    assert draw(table(tmp_path / "a", dict(ce=dict(kind="ce"), kl3=dict(tau=3))).experiment()) == []
    assert draw(table(tmp_path / "b", dict(mse=dict(kind="mse"))).experiment()) == []
    outside = table(tmp_path / "c", dict(kl3=dict(tau=3))).experiment(outside=True)
    assert len(draw(outside)) == 1


def without(*names):
    """A log that lacks some scalars."""

    def write(kind, begin):
        lines = lines_of(kind, begin)
        return [{k: v for k, v in line.items() if k.split("/")[-1] not in names} for line in lines]

    return write


@pytest.mark.parametrize(
    ("write", "shown"),
    [
        (without("sum_predicted", "sum_deviation"), {"classifier/bias_sum"}),  # resumed
        # Weights that began as zeros have no shares.
        (lambda kind, begin: without("sum_deviation")(kind, 0.0), {"classifier/bias_sum"}),
        (
            lambda kind, begin: [
                {k: 0.0 if k == "classifier/sum_deviation" else v for k, v in line.items()}
                for line in lines_of(kind, begin)
            ],
            {f"classifier/{name}" for name in
             ("bias_sum", "sum_norm", "sum_predicted", "sum_deviation")} | {"logits/sum_deviation"},
        ),
    ],
)  # fmt: skip
def test_shows_what_there_is(tmp_path, write, shown):
    (drawing,) = draw(table(tmp_path, write=write).experiment())
    assert set(drawing.numbers) == shown
    drawing.figure.canvas.draw()


def test_bands_below_zero_do_not_take_a_logarithmic_axis_with_them(tmp_path):
    """Of two seeds a hundredfold apart the deviation exceeds the mean."""

    def apart(kind, begin):
        share = 1.0 if begin == 2.0 else 0.01
        scaled = ("logits/sum_deviation", "classifier/sum_deviation")
        return [{k: v * share if k in scaled else v for k, v in line.items()}
                for line in lines_of(kind, begin)]  # fmt: skip

    (drawing,) = draw(table(tmp_path, write=apart).experiment())
    for axes, name in zip(drawing.figure.axes[1::2], ("classifier", "logits"), strict=True):
        found = drawing.numbers[f"{name}/sum_deviation"].values()
        assert max(s - m for f in found for m, s in zip(f["mean"], f["std"], strict=True)) > 0
        least, most = (end(min(f["mean"]) for f in found) for end in (min, max))
        assert axes.get_yscale() == "log"
        low, high = axes.get_ylim()
        assert low == pytest.approx(0.6 * least, rel=1e-4)
        assert high > most


def test_long_runs_are_thinned_and_keep_their_end(tmp_path):
    def long(kind, begin):
        return [
            {"classifier/bias_sum": float(step), "epoch": 1 + (step - 1) // 12, "step": step}
            for step in range(1, 1001)
        ]

    records = table(tmp_path, seeds=1, write=long)
    for run in records.runs:
        run["row"].update(iterations=1000, epochs=1000 / 12)
    (drawing,) = draw(records.experiment())
    found = drawing.numbers["classifier/bias_sum"]["MSE"]
    assert len(found["mean"]) <= 300
    assert found["mean"][-1] == 1000


def test_runs_that_logged_no_sums_have_no_figure_and_asking_for_it_says_why(tmp_path, capsys):
    def bare(kind, begin):
        return [dict(step=5, epoch=1, loss=1.0)]

    records = table(tmp_path, write=bare)
    records.write()
    assert draw(records.experiment()) == []
    with pytest.raises(SystemExit):
        command.main([str(records.path().parent), "--figure", "class_sums"])
    said = capsys.readouterr().err
    assert re.search("that needs .* classifier/sum_norm.*ClassifierSumHook", said)


def test_sums_of_the_teacher_alone_are_not_drawn(tmp_path):
    """It trained by a config with the hook, and its students by one without."""

    def write(kind, begin):
        lines = lines_of(kind, begin)
        return lines if kind == "ce" else [ln for ln in lines if "classifier/sum_norm" not in ln]

    assert draw(table(tmp_path / "some", write=write).experiment()) == []
    assert len(draw(table(tmp_path / "all").experiment())) == 1
