"""All measured cells as JSON."""

import json
import re

import pytest
from commands import PROJECT
from report_records import row_of

from mmkd_logit.lab.report import command


def cells_of(path, rows, capsys):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command.main([str(path), "--json"])
    return json.loads(capsys.readouterr().out)


def taught(seed, teacher, top1=70.0, **changed):
    checkpoint = {"model.teacher.checkpoint": f"work_dirs/t/seed{teacher}/final.pth"}
    return dict(row_of("kl", seed, top1), overrides=checkpoint, teachers=[f"t{teacher}"], **changed)


def test_rows_that_differ_in_the_seed_are_a_cell(tmp_path, capsys):
    rows = [row_of("mse", seed, 70.0 + seed) for seed in (2, 0, 1)]
    rows += [dict(row_of("mse", 0, 71.0), images=901), dict(row_of("mse", 0, 1.0), epochs=6)]
    first, short = cells_of(tmp_path / "rows.jsonl", rows, capsys)
    key = "test.accuracy/top1"
    assert (first["config"], first["overrides"]) == ("configs/kd/mse.py", {"model.alpha": 0.9})
    assert (first["seeds"], first["n"], first["epochs"]) == ([0, 1, 2], 3, 30)
    # The second run of seed 0 counts: 71, 71 and 72.
    assert first["mean"][key] == pytest.approx(214 / 3)
    assert first["std"][key] == pytest.approx(3**-0.5)
    assert (first["teachers"], first["commits"]) == ([["e" * 64]] * 3, ["c" * 40])
    assert (short["epochs"], short["n"], short["images"]) == (6, 1, None)
    assert (short["mean"][key], short["std"][key]) == (1.0, None)


def test_rows_of_a_config_that_was_changed_since_are_two_cells(tmp_path, capsys):
    def trained(seed, lr, batch_size=128):
        model = dict(teacher=dict(weights=f"hash{seed}"), weights=dict(ce=0.1, kd=9))
        computed = dict(model=model, optim_wrapper=dict(lr=lr), randomness=dict(seed=seed))
        computed["train_dataloader"] = dict(batch_size=batch_size)
        return dict(row_of("mse", seed, 70.0), computed=computed)

    rows = [trained(0, 0.1), trained(1, 0.1), trained(2, 0.01), trained(3, 0.1, 16)]
    assert [cell["n"] for cell in cells_of(tmp_path / "rows.jsonl", rows, capsys)] == [2, 1, 1]


def test_images_and_changed_files(tmp_path, capsys):
    row = dict(row_of("ce", 0, 1.0), images=901, dirty=True, teachers=None, test={"a": 1, "b": []})
    (cell,) = cells_of(tmp_path / "rows.jsonl", [row], capsys)
    assert (cell["images"], cell["commits"], cell["teachers"]) == (901, ["c" * 40 + "+"], [[]])
    assert cell["mean"] == {"test.a": 1}


def test_teachers_of_the_students_seed_and_fixed_ones(tmp_path, capsys):
    own = [taught(seed, seed) for seed in (0, 1)]
    (cell,) = cells_of(tmp_path / "own.jsonl", own, capsys)
    assert cell["overrides"] == own[0]["overrides"]
    assert cell["teachers"] == [["t0"], ["t1"]]
    (cell,) = cells_of(tmp_path / "fixed.jsonl", [taught(seed, 0) for seed in (0, 1)], capsys)
    assert cell["overrides"] == own[0]["overrides"]
    assert cell["teachers"] == [["t0"], ["t0"]]


def test_a_folder_and_a_file_to_write(tmp_path, capsys):
    (tmp_path / "runs.jsonl").write_text(json.dumps(row_of("ce", 0, 1.0)) + "\n{\n3\n")
    out = tmp_path / "new/cells.json"
    command.main([str(tmp_path), "--json", "--out", str(out)])
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    for number, line in zip((2, 3), captured.err.splitlines(), strict=True):
        assert line.startswith(f"runs.jsonl: line {number} is not a results row (")
    assert json.loads(out.read_text())[0]["n"] == 1


def test_the_published_rows(capsys):
    """Each number of README's tables is among the cells of the rows that they are rendered from."""
    command.main([str(PROJECT / "configs/paper/measured.jsonl"), "--json"])
    cells = json.loads(capsys.readouterr().out)
    shown = {
        f"{cell['mean'][key]:.2f} ± {std:.2f} ({cell['n']})"
        for cell in cells
        for key, std in cell["std"].items()
        if std is not None
    }
    table = re.findall(r"\d+\.\d\d ± \d+\.\d\d \(\d\)", (PROJECT / "README.md").read_text())
    assert table
    assert set(table) <= shown


def test_the_sentences_of_readme():
    """Each difference that README states with its interval stands in a rendered comparison."""
    number = r"([+-]\d+\.\d\d)"
    interval = rf"\[{number}, {number}\]"
    page = (PROJECT / "configs/paper/README.md").read_text()
    rendered = re.findall(rf"{number} points, 95 % interval {interval}", page)
    prose = " ".join((PROJECT / "README.md").read_text().split())
    stated = re.findall(rf"{number}(?: points)? {interval}", prose)
    assert stated
    assert set(stated) <= set(rendered)


def test_no_page_shows_a_smoke_run():
    """Tables of experiments in small on digits, and comparisons of one seed, mean nothing."""
    pages = [PROJECT / "README.md", *PROJECT.glob("docs/*.md"), *PROJECT.glob("configs/**/*.md")]
    for page in pages:
        text = page.read_text()
        for words in re.findall(r"<!-- measured: (.*?) -->", text):
            assert "--scale digits" not in words, page
        assert "points, one seed" not in text, page
    for metafile in PROJECT.glob("configs/*/metafile.yml"):
        assert not re.search(r"Seeds: 1\b(?!\d)", metafile.read_text()), metafile
