"""Dumps of a family: of the run's weights, and each student beside the teacher of its seed."""

import numpy as np
import pytest
from dump_records import arrays_of, experiment_of, runs_of, whole_experiment, write_dump

from mmkd_logit.lab.report.samples import samples_of as splits_of


def samples_of(experiment, split="train"):
    (splits,) = splits_of(experiment)
    return next(samples for samples in splits if samples.split == split)


def run_in(experiment, name, seed=0):
    return next(
        run for run in experiment.record["runs"] if (run["name"], run["seed"]) == (name, seed)
    )


def by_name(samples):
    """What a measure is given of each student: its logits and those of its teacher."""
    rows = samples.measure(lambda dump, beside: dict(given=(dump, beside)))["given"][1:]
    return {(row.name, seed): given for row in rows for seed, given in row.by_seed.items()}


@pytest.fixture
def two(tmp_path):
    """Two seeds of a student by cross-entropy and one by MSE, dumped."""
    return whole_experiment(tmp_path, seeds=(0, 1), methods=("ce", "mse"))


def test_a_student_without_teacher_takes_that_of_its_seed(two):
    samples = samples_of(two)
    found = by_name(samples)
    assert list(found) == [("CE", 0), ("CE", 1), ("MSE", 0), ("MSE", 1)]
    for seed in (0, 1):
        taught = arrays_of("mse", seed, "train")["teacher_logits"]
        np.testing.assert_array_equal(found["CE", seed][1], taught)
        np.testing.assert_array_equal(found["MSE", seed][1], taught)
        np.testing.assert_array_equal(
            found["CE", seed][0].logits, arrays_of("ce", seed, "train")["logits"]
        )
    assert not np.array_equal(found["CE", 0][1], found["CE", 1][1])
    assert samples.sources == {
        f"work_dirs/{name}/seed{seed}/logits/train.npz" for seed in (0, 1) for name in ("ce", "mse")
    }
    assert samples.sizes == {60}


@pytest.mark.parametrize("field", ["index", "clean_label"])
def test_other_samples_are_not_compared(two, tmp_path, field):
    arrays = arrays_of("ce", 1, "train")
    arrays[field] = np.roll(arrays[field], 1)
    write_dump(tmp_path, run_in(two, "ce", 1), "train", arrays)
    found = by_name(samples_of(two))
    assert found["CE", 1][1] is None
    assert found["CE", 0][1] is not None
    whole = arrays_of("ce", 0, "train")
    short = {name: v if name == "weight" else v[:-1] for name, v in whole.items()}
    short |= {name: whole[name] for name in ("weight", "bias", "classes")}
    write_dump(tmp_path, run_in(two, "ce", 0), "train", short)
    assert by_name(samples_of(two))["CE", 0][1] is None


def test_no_other_file_says_what_the_teacher_computes(tmp_path):
    """A teacher's own export may be of other weights, or of one of several teachers."""
    runs = runs_of(0, methods=("mse",))
    write_dump(tmp_path, runs[0], "train", arrays_of(None, 0, "train"))
    write_dump(tmp_path, runs[1], "train", arrays_of("mse", 0, "train", teacher=False))
    samples = samples_of(experiment_of(tmp_path, runs))
    assert samples.teacher(0) is None
    assert [beside for _, beside in by_name(samples).values()] == [None]


def test_a_stale_dump_is_refused(two, tmp_path):
    write_dump(tmp_path, run_in(two, "mse"), "train", arrays_of("mse", 0, "train"), weights="old")
    with pytest.raises(ValueError, match="not of this run any more: their weights are old") as told:
        by_name(samples_of(two))
    assert "export them again with --dump-logits, or by tools/dump_logits.py" in str(told.value)
    assert "work_dirs/mse/seed0/logits/train.npz" in str(told.value)
    assert run_in(two, "mse")["row"]["weights"][:12] in str(told.value)
    # The other split is as it was.
    assert len(by_name(samples_of(two, "test"))) == 4


def test_a_dump_beside_another_teacher_is_refused(two, tmp_path):
    write_dump(tmp_path, run_in(two, "mse"), "train", arrays_of("mse", 0, "train"), teachers=["x"])
    with pytest.raises(ValueError, match=r"their teachers are \['x'\] and the run's \["):
        by_name(samples_of(two))


def test_a_dump_that_says_nothing_of_its_weights_is_refused(two, tmp_path):
    write_dump(tmp_path, run_in(two, "ce"), "train", arrays_of("ce", 0, "train"), weights=None)
    with pytest.raises(ValueError, match="their weights are None"):
        by_name(samples_of(two))


def test_a_dump_that_is_gone(two, tmp_path):
    (tmp_path / "work_dirs/ce/seed1/logits/train.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"seed1/logits/train\.npz do not exist"):
        by_name(samples_of(two))


def test_what_is_missing(two):
    del run_in(two, "ce")["files"]["dumps"]["train"]
    assert samples_of(two).missing == []  # the other seed has one
    del run_in(two, "ce", 1)["files"]["dumps"]["train"]
    samples = samples_of(two)
    assert samples.missing == ["CE"]
    assert list(by_name(samples)) == [("MSE", 0), ("MSE", 1)]


def test_splits(two, tmp_path):
    (splits,) = splits_of(two)
    assert [samples.split for samples in splits] == ["train", "test"]
    write_dump(tmp_path, run_in(two, "mse"), "val", arrays_of("mse", 0, "test"))
    (splits,) = splits_of(two)
    assert [samples.split for samples in splits] == ["train", "test", "val"]
