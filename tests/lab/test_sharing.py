"""Which runs share a teacher's pass."""

from pathlib import Path

import pytest

from mmkd_logit.engine.results import read_lines
from mmkd_logit.lab import reproduce
from mmkd_logit.lab.experiment import Experiment
from mmkd_logit.lab.scheduler import units_of

TABLE1 = "configs/paper/digits/table1.py"


def units(experiment, size, seeds=(0,)):
    runs = {run.work_dir: run for run in Experiment(experiment).runs(list(seeds))}
    configs = {folder: run.build_config() for folder, run in runs.items()}
    found = units_of(runs, configs, size)
    assert sorted(folder for unit in found for folder in unit) == sorted(runs)
    return [[runs[folder].name for folder in unit] for unit in found], runs


def test_students_of_one_teacher_and_those_without_share(workplace):
    (teacher, *groups), _ = units(TABLE1, 8)
    assert teacher == ["teacher"]  # its weights are needed first
    assert sorted(len(group) for group in groups) == [3, 8, 8, 8, 8]
    together = [name for group in groups for name in group]
    assert sum(name.endswith("_ce") for name in together) == 5  # they have no teacher


def test_nothing_is_shared_unless_asked(workplace):
    found, runs = units(TABLE1, 1)
    assert [len(unit) for unit in found] == [1] * len(runs)


def test_seeds_are_apart(workplace):
    found, _ = units(TABLE1, 100, seeds=(0, 1))
    assert sorted(len(unit) for unit in found) == [1, 1, 35, 35]


@pytest.mark.parametrize("name", ["sequential", "born-again", "ensemble", "table2", "data-amount"])
def test_no_unit_needs_itself(workplace, name):
    found, runs = units(f"configs/paper/digits/{name}.py", 100)
    by_name = {run.name: run for run in runs.values()}
    for unit in found:
        for member in unit:
            needs = {run.name for run in by_name[member].needs}
            assert not needs & set(unit), (member, unit)
    shares = any(len(unit) > 1 for unit in found)
    assert shares is (name != "born-again")  # there each teaches the next


def test_reproduce_shares_and_the_rows_are_those_of_single_runs(workplace, capsys):
    words = ["table1", "--scale", "digits", "--epochs", "1", "--devices", "cpu"]
    words += ["--only", "wrn10_1_ce", "wrn10_1_kl-t3", "wrn10_1_mse"]
    reproduce.main([*words, "--share-teacher"])
    first = capsys.readouterr()
    assert "together with 2 others" in first.err
    rows = read_lines(Path("results/runs.jsonl"))
    assert [row["together"] for row in rows] == [1, 3, 3, 3]
    reproduce.main(words)  # without the flag: nothing is left to do
    second = capsys.readouterr()
    assert second.err.count("done before") == 4
    assert second.out == first.out


def test_a_group_that_fails_fails_its_runs_and_goes_on(workplace, capsys):
    """A killed group is taken up again as the same group."""
    words = ["table1", "--scale", "digits", "--epochs", "2", "--devices", "cpu"]
    words += ["--only", "wrn10_1_ce", "wrn10_1_kl-t3", "wrn10_1_mse", "--share-teacher"]
    bad = ["train_dataloader.drop_last=True", "train_dataloader.batch_size=9999"]
    with pytest.raises(SystemExit):
        reproduce.main([*words, "--cfg-options", *bad])
    assert "failed" in capsys.readouterr().err
    reproduce.main(words)
    capsys.readouterr()
    (common,) = Path("work_dirs/together").glob("*/runs.txt")
    rows = Path("results/runs.jsonl").read_text().splitlines(keepends=True)
    Path("results/runs.jsonl").write_text("".join(rows[:2]))  # killed before the other rows
    reproduce.main(words)
    assert "together with 2 others" in capsys.readouterr().err
    assert len(list(Path("work_dirs/together").glob("*/runs.txt"))) == 1
    assert len(read_lines(Path("results/runs.jsonl"))) == 4
    assert common.is_file()


def test_share_teacher_below_one_is_an_error(workplace, capsys):
    with pytest.raises(SystemExit):
        reproduce.main(["table1", "--scale", "digits", "--share-teacher", "0"])
    assert "--share-teacher must be at least 1" in capsys.readouterr().err
