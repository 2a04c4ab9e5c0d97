"""Numbers in pages come from rows, and --check sees when they do not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands import PROJECT, error_of

from mmkd_logit.engine.fingerprint import computed_content
from mmkd_logit.engine.results import append_line, read_lines
from mmkd_logit.lab.experiment import Experiment, read_once
from mmkd_logit.lab.publish import MEASURED, main, measured_rows, render_metafile, render_readme

TEACHER = "configs/wrn/wrn16-2_digits.py"
EXPERIMENT = f"""
title = 'Small'
runs = dict(
    big=dict(row='Teacher', config={TEACHER!r}),
    kd=dict(row='Distilled', config='configs/kd/wrn16-2_wrn10-1-thin_mse_digits.py', teacher='big'))
"""


def row_of(run, top1, weights, teachers=(), **kwargs):
    finals = [f"{teacher.work_dir}/final.pth" for teacher in run.teachers]
    known = dict(zip(finals, teachers, strict=True))
    return {
        **dict(
            config=run.config,
            computed=computed_content(run.build_config(), weights=known),
            seed=run.seed,
            overrides={"model.teacher.checkpoint": "x"} if teachers else {},
            epochs=30,
            teachers=list(teachers),
            weights=weights,
            test={"accuracy/top1": top1},
            train=None,
            commit="0123456789abcdef",
            dirty=False,
            device="CPU",
            versions=dict(torch="2.15.0"),
            finished="2026-01-01T00:00:00Z",
        ),
        **kwargs,
    }


@pytest.fixture
def place(workplace):
    read_once.cache_clear()
    Path("configs").unlink()
    for folder in ("wrn", "kd", "_base_"):
        Path("configs").mkdir(exist_ok=True)
        Path("configs", folder).symlink_to(PROJECT / "configs" / folder)
    Path("configs/paper").mkdir()
    Path("small.py").write_text(EXPERIMENT)
    return Experiment("small.py").runs([0, 1])


def test_rows_by_what_they_say_of_themselves(place):
    big, kd, _, kd1 = place
    rows = [
        row_of(big, 90.0, "w0"),
        row_of(kd, 91.0, "v0", ["w0"]),
        row_of(kd1, 92.0, "v1", ["w1"]),
    ]
    assert list(measured_rows(place, rows)) == [big, kd]  # the other teacher is not known
    assert measured_rows(place, [*rows, row_of(kd, 95.0, "v2", ["w0"])])[kd]["weights"] == "v2"
    older = row_of(big, 99.0, "w9", computed=dict(model="another"))
    assert list(measured_rows(place, [older])) == []
    # A row of the teacher that came later has other students.
    assert list(measured_rows(place, [*rows, row_of(big, 90.0, "w7")])) == [big]


@pytest.mark.parametrize("field", ["scores", "file"])
def test_files_that_are_not_here_do_not_decide(place, field):
    """Such as the logits by which a run chose its samples, whose hash the row has."""
    row = row_of(place[0], 90.0, "w0")
    row["computed"]["train_dataloader"]["dataset"][field] = "the hash of a file elsewhere"
    assert list(measured_rows(place[:1], [row])) == [place[0]]


def test_a_page(place):
    rows = [row_of(place[0], 90.0, "w0"), row_of(place[1], 91.0, "v0", ["w0"])]
    page = "# T\n\n<!-- measured: small.py -->\nold\n<!-- end -->\n\nrest 1\n"
    text = render_readme(page, rows)
    assert "| Distilled | 91.00 (1) |" in text
    assert text.startswith("# T\n\n<!-- measured: small.py -->\n### Small\n")
    assert text.endswith("0123456789ab.\n<!-- end -->\n\nrest 1\n")
    assert render_readme(text, rows) == text
    with pytest.raises(ValueError, match="no experiment 'nope'"):
        render_readme("<!-- measured: nope -->\n<!-- end -->\n", rows)


def test_a_page_with_one_metric(place):
    top1, top5 = (f"dict(title='{key}', key='test.accuracy/{key}')" for key in ("top1", "top5"))
    Path("small.py").write_text(f"{EXPERIMENT}metrics = [{top1}, {top5}]\n")
    rows = [row_of(place[0], 90.0, "w0", test={"accuracy/top1": 90.0, "accuracy/top5": 99.0})]
    page = "<!-- measured: small.py{} -->\n<!-- end -->\n"
    assert "| Teacher | 99.00 (1) |" in render_readme(page.format(""), rows)
    text = render_readme(page.format(" --metric test.accuracy/top1"), rows)
    assert "| Teacher | 90.00 (1) |" in text
    assert "99.00" not in text
    with pytest.raises(ValueError, match=r"the experiment small has no metric 'test\.no'"):
        render_readme(page.format(" --metric test.no"), rows)


def test_a_benchmark(place):
    ratios = {"bare": dict(ratio=0.8, quartiles=[0.7, 0.9])}
    rows = [
        dict(name="bare", cpu_ms=[1.0, 2.0, 3.0], wall_ms=[2.0], peak_mib=7, ratios={}),
        dict(name="exact", cpu_ms=[1.6], wall_ms=[4.0], peak_mib=9, ratios=ratios),
    ]
    machine = dict(device="CPU", threads=1, load=0.5, commit="0123456789abcdef", dirty=True)
    machine["versions"] = dict(torch="2.15.0")
    file = Path("speed.json")
    file.write_text(json.dumps(dict(notes=["data"], training=rows, machine=machine)))
    page = "<!-- measured: speed.json -->\n<!-- end -->\n"
    text = render_readme(page, [])
    assert "\n| bare | 2 | 2 | 7 |  |\n| exact | 1.6 | 4 | 9 | 0.80 [0.70, 0.90] |\n" in text
    assert "load average 0.5; torch 2.15.0; commit 0123456789ab with changes.\n<!-- end" in text
    file.write_text(file.read_text().replace("1.6", "1.7"))
    assert "| exact | 1.7 |" in render_readme(text, [])


def test_a_metafile(place):
    text = (PROJECT / "configs/wrn/metafile.yml").read_text()
    clean = render_metafile(text, [])
    assert "Results:" not in clean
    rows = [row_of(run, top1, "w") for run, top1 in ((place[0], 90.0), (place[2], 91.0))]
    reduced = row_of(replace(place[0], epochs=3), 10.0, "w")
    changed = row_of(replace(place[0], overrides=("model.backbone.drop_rate=0.5",)), 10.0, "w")
    older = row_of(place[0], 10.0, "w", computed=dict(model="another"))
    of_an_ensemble = row_of(replace(place[0], seed=1000), 10.0, "w")
    filled = render_metafile(clean, [*rows, reduced, changed, older, of_an_ensemble])
    (entry,) = [e for e in filled.split("  - Name: ") if e.startswith("wrn16-2_digits\n")]
    assert entry.endswith(
        "    Results:\n      - Dataset: Digits\n        Task: Image Classification\n"
        "        Metrics:\n          Top 1 Accuracy: 90.50\n          Seeds: 2\n"
    )
    assert filled.count("Results:") == 1
    assert render_metafile(filled, rows) == filled
    assert render_metafile(filled, []) == clean


def test_a_metafile_has_no_other_teachers_students(place):
    clean = render_metafile((PROJECT / "configs/kd/metafile.yml").read_text(), [])
    kd, others = place[1], []
    for inputs in (
        ("model.teacher.checkpoint=work_dirs/elsewhere/seed0/final.pth",),
        (
            "model.teacher.config=configs/wrn/wrn10-1_digits.py",
            "model.teacher.checkpoint=work_dirs/wrn10-1_digits/seed0/final.pth",
        ),
        ("model.teacher=[{'config': 'a', 'checkpoint': 'b'}]",),
    ):
        others.append(row_of(replace(kd, inputs=inputs), 10.0, "w", ["other"]))
    taught = [row_of(place[0], 90.0, "t"), row_of(place[2], 90.0, "t1")]
    assert render_metafile(clean, [*taught, *others]) == clean
    usual = [row_of(kd, 91.0, "w", ["t"]), row_of(place[3], 92.0, "w", ["t1"])]
    assert render_metafile(clean, usual) == clean  # of teachers that nobody knows
    filled = render_metafile(clean, [*taught, *usual])
    assert filled.count("Top 1 Accuracy: 91.50\n          Seeds: 2\n") == 1


def test_the_command(place, capsys):
    Path("README.md").write_text("<!-- measured: small.py -->\n<!-- end -->\n")
    command = ["tools/train.py", "a.py", "--results", str(Path("runs.jsonl").resolve())]
    append_line(Path("runs.jsonl"), dict(row_of(place[0], 90.0, "w0"), command=command))
    # The folders of the project itself must not be written to.
    for folder in ("wrn", "kd"):
        Path("configs", folder).unlink()
        Path("configs", folder).mkdir()
        for file in (PROJECT / "configs" / folder).iterdir():
            Path("configs", folder, file.name).write_text(file.read_text())
    main(["--add", "runs.jsonl"])
    assert "| Teacher | 90.00 (1) |" in Path("README.md").read_text()
    assert "Top 1" not in Path("configs/wrn/metafile.yml").read_text()  # one seed
    main(["--check"])
    assert capsys.readouterr().out.splitlines()[-1] == "1 rows; up to date"
    main(["--add", "runs.jsonl"])
    (row,) = read_lines(MEASURED)
    assert row["command"] == ["tools/train.py", "a.py", "--results", "runs.jsonl"]
    text = Path("README.md").read_text().replace("90.00", "99.00")
    Path("README.md").write_text(text)
    assert error_of(capsys, main, "--check") == (
        "README.md do not show what configs/paper/measured.jsonl says; "
        "run python tools/publish_results.py"
    )
    assert Path("README.md").read_text() == text
    assert "nope.jsonl does not exist" in error_of(capsys, main, "--add", "nope.jsonl")


def test_the_projects_pages_are_up_to_date(project, capsys):
    main(["--check"])


def test_rows_of_fewer_digits_have_tables_of_their_own(place):
    exact, fast = (Experiment("small.py", fast=fast).runs([0, 1]) for fast in (0, 1))
    assert not {run.work_dir for run in exact} & {run.work_dir for run in fast}
    rows = []
    for runs, top1, numerics in ((exact, 90.0, {}), (fast, 50.0, dict(numerics="bfloat16"))):
        for run in runs:
            name = f"{run.work_dir} {top1}"
            teachers = [f"{teacher.work_dir} {top1}" for teacher in run.teachers]
            rows.append(row_of(run, top1 + run.seed, name, teachers, **numerics))
    for order in (rows, rows[::-1]):
        for runs, low in ((exact, 90.0), (fast, 50.0)):
            found = measured_rows(runs, order)
            assert {run: row["test"]["accuracy/top1"] for run, row in found.items()} == {
                run: low + run.seed for run in runs
            }
        block = "<!-- measured: small.py{} -->\n<!-- end -->\n"
        page = render_readme(block.format("") + block.format(" --fast"), order)
        first, second = page.split("<!-- end -->\n")[:2]
        assert "90.50 ± 0.71 (2)" in first
        assert "bfloat16" not in first
        assert "50.50 ± 0.71 (2)" in second
        assert "30 epochs; bfloat16; CPU" in second
        metafile = f"  - Name: a\n    Config: {TEACHER}\n    Training Data: digits\n"
        assert "Top 1 Accuracy: 90.50" in render_metafile(metafile, order)
        only_fast = [row for row in order if "numerics" in row]
        assert "Accuracy" not in render_metafile(metafile, only_fast)
