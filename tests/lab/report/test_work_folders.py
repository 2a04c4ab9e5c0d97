import json

import numpy as np
import pytest
from lab.report.records import method, write_dump, write_scalars

from mmkd_logit.lab.report.data import experiment_of_folders, is_work_folder


def folder(tmp_path, name, epochs=2, **identity):
    work_dir = tmp_path / name
    lines = [dict(step=10 * e, epoch=e, batch_top1=1.0 * e) for e in range(1, epochs + 1)]
    write_scalars(work_dir, lines)
    if identity:
        write_dump(work_dir, "test", identity, logits=np.zeros((4, 2), np.float32))
    return work_dir


def test_runs_are_called_after_their_folders(tmp_path):
    folders = [folder(tmp_path, name) for name in ("a/seed0", "a/seed3", "b/seed0", "c")]
    record = experiment_of_folders(folders).record
    assert [(run["name"], run["seed"]) for run in record["runs"]] == [
        ("a", 0), ("a", 3), ("b", 0), ("c", 0)
    ]  # fmt: skip
    assert record["cells"] == {name: [name, ""] for name in "abc"}
    assert record["runs"][0]["method"]["kind"] == "other"
    assert record["runs"][0]["method"]["loss"] == "a"
    assert record["runs"][0]["row"]["epochs"] == 2


def test_folders_of_one_name_are_told_apart(tmp_path):
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


def test_what_is_no_work_folder(tmp_path):
    assert is_work_folder(folder(tmp_path, "a/seed0"))
    assert not is_work_folder(tmp_path / "a")
    assert not is_work_folder(tmp_path / "nowhere")


def test_logs_of_an_earlier_run_in_the_folder_are_left_out(tmp_path):
    work_dir = folder(tmp_path, "a/seed0", epochs=3)
    (own,) = work_dir.glob("*/vis_data/scalars.json")
    earlier = work_dir / "20200101_000000" / "vis_data" / "scalars.json"
    earlier.parent.mkdir(parents=True)
    lines = [json.dumps(dict(step=10 * e, epoch=e, batch_top1=90.0)) for e in range(1, 7)]
    earlier.write_text("\n".join(lines) + "\n")
    assert len(experiment_of_folders([work_dir]).record["runs"][0]["files"]["scalars"]) == 2
    (work_dir / "run.json").write_text(json.dumps(dict(logs=[own.parts[-3]])))
    (run,) = experiment_of_folders([work_dir]).record["runs"]
    assert (run["files"]["scalars"], run["epochs"]) == ([str(own)], 3)
