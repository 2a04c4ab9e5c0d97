import numpy as np
import pytest
from lab.report.records import method, write_dump, write_scalars

from mmkd_logit.lab.report.data import experiment_of_folders


def folder(tmp_path, name, **identity):
    work_dir = tmp_path / name
    write_scalars(work_dir, [dict(step=10 * e, epoch=e, batch_top1=1.0 * e) for e in (1, 2)])
    if identity:
        write_dump(work_dir, "test", identity, logits=np.zeros((4, 2), np.float32))
    return work_dir


def test_runs_are_called_after_their_folders(tmp_path):
    folders = [folder(tmp_path, name) for name in ("a/seed0", "a/seed3", "c")]
    record = experiment_of_folders(folders).record
    named = [(run["name"], run["seed"]) for run in record["runs"]]
    assert named == [("a", 0), ("a", 3), ("c", 0)]
    assert record["cells"] == dict(a=["a", ""], c=["c", ""])
    assert record["runs"][0]["row"]["epochs"] == 2
    # Folders of one name are told apart.
    folders = [folder(tmp_path, name) for name in ("x/a/seed0", "y/a/seed0", "y/b/seed0")]
    names = [run["name"] for run in experiment_of_folders(folders).record["runs"]]
    assert names == ["x/a", "y/a", "y/b"]


def test_a_dump_says_by_what_a_run_was_trained(tmp_path):
    told = dict(method=method("kl", tau="inf"), weights="abc", teachers=["def"], config="c.py")
    (run,) = experiment_of_folders([folder(tmp_path, "a/seed0", **told)]).record["runs"]
    assert run["method"] == told["method"]
    assert (run["row"]["weights"], run["row"]["teachers"]) == ("abc", ["def"])
    assert list(run["files"]["dumps"]) == ["test"]


def test_a_dump_that_is_cut_off_is_named(tmp_path):
    work_dir = folder(tmp_path, "a/seed0", method=method("mse"))
    path = work_dir / "logits" / "test.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"test.npz is not a whole dump .*tools/dump_logits.py"):
        experiment_of_folders([work_dir])
