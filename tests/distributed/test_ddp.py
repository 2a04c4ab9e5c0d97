"""Two and four processes over gloo."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from processes import run, run_ranks

from mmkd_logit.engine.logits import main as dump_logits
from mmkd_logit.lab.report.data import read_dump

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return run_ranks("distributed/worker.py", tmp_path_factory.mktemp("ddp"))


@pytest.fixture(scope="module", params=[2, 4])
def ranks(folder, request):
    files = [folder / str(request.param) / f"{rank}.pt" for rank in range(request.param)]
    return [torch.load(file, weights_only=False) for file in files]


def test_group_is_gloo_and_the_wrapper_names_no_device(ranks):
    assert ranks[0]["backend"] == "gloo"
    assert ranks[0]["wrapper"]["device_ids"] is None


CASES = [0.0, 0.5, 1.0, "features 0.0", "features 1.0", "KL", "KL, tau inf"]
CASES += ["ensemble, logits", "ensemble, probs"]


@pytest.mark.parametrize("alpha", CASES)
def test_gradient_equals_one_process_on_the_joined_batch(ranks, alpha):
    joined = ranks[0][f"joined {alpha}"]
    assert ("feature_adapters.0.student.weight" in joined) == str(alpha).startswith("features")
    for name, expected in joined.items():
        for rank in ranks:
            torch.testing.assert_close(
                rank[f"ddp {alpha}"][name], expected, rtol=1e-4, atol=1e-6, msg=name
            )
    # The control: without DDP the parts give other gradients.
    name = "head.fc.weight"
    alone = [rank[f"alone {alpha}"][name] for rank in ranks]
    assert not torch.allclose(alone[0], alone[1], rtol=1e-2)
    assert not torch.allclose(alone[0], joined[name], rtol=1e-2)


def test_teacher_is_outside_the_buckets_and_equal_on_all_ranks(ranks):
    assert ranks[0]["ddp names"]
    assert not any("teacher" in name for name in ranks[0]["ddp names"])
    assert len(ranks[0]["ddp names"]) == len(ranks[0]["joined 1.0"])
    for key, value in ranks[0]["teacher"].items():
        assert all(torch.equal(value, rank["teacher"][key]) for rank in ranks)


def test_scripts_train_and_test_with_two_processes(workplace):
    """Plain training over two processes; its weights test the same with two and with one."""
    config = "configs/wrn/wrn10-1-thin_digits.py"
    options = ["train_cfg.max_epochs=2", "train_dataloader.dataset.dataset.indices=125"]
    done = run(
        *("tools/dist_train.sh", config, "2", "--results", "rows.jsonl", "--dump-logits"),
        *("--cfg-options", *options),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = "work_dirs/wrn10-1-thin_digits/seed0"
    final = f"{folder}/final.pth"
    both = run("tools/dist_test.sh", config, final, "2", "--out", "2.json", "--out-item", "metrics")
    assert both.returncode == 0, both.stderr[-3000:]
    one = run(
        *(sys.executable, "tools/test.py", config, final, "--out", "1.json"),
        *("--out-item", "metrics"),
    )
    assert one.returncode == 0, one.stderr[-3000:]
    assert (workplace / "1.json").read_text() == (workplace / "2.json").read_text()
    assert (workplace / "rows.jsonl").read_text().count("\n") == 1  # one row, not one a rank
    dump_logits([config, final, "--out", "logits", "--cfg-options", *options])
    for split in ("train", "test"):  # the last batch of 125 is not the same for both ranks
        both, one = (read_dump(f"{place}/{split}.npz") for place in (f"{folder}/logits", "logits"))
        assert both.identity == one.identity
        for name in ("index", "label", "clean_label", "weight", "bias", "classes"):
            np.testing.assert_array_equal(getattr(both, name), getattr(one, name), err_msg=name)
        np.testing.assert_allclose(both.logits, one.logits, atol=1e-5)
        np.testing.assert_allclose(both.prelogits, one.prelogits, atol=1e-5)


@pytest.mark.parametrize("script", ["dist_train.sh", "dist_test.sh", "slurm_train.sh"])
def test_scripts_say_how_they_are_used(script):
    done = run(str(PROJECT / "tools" / script))
    assert done.returncode == 2
    assert "usage" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_of_two_processes_is_one_line(workplace):
    done = run("tools/dist_train.sh", "configs/kd/wrn16-2_wrn10-1-thin_mse_digits.py", "2")
    assert done.returncode == 1
    assert done.stderr.count("work_dirs/wrn16-2_digits/seed0/final.pth does not exist") == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 4, done.stderr
