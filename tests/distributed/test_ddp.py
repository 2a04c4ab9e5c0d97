"""Two and four processes over gloo."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from commands import STUDENT, folder_of, test_tool, train_tool
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from networks import batch, build, distiller, wrn
from processes import run_ranks, start_ranks

from mmkd_logit.engine.launch import prepare_launch
from mmkd_logit.engine.logits import main as dump_logits
from mmkd_logit.lab.report.data import read_dump


def without_batch_statistics():
    """BatchNorm in evaluation, since gloo has no SyncBN and parts are not the whole."""
    cfg = wrn()
    cfg["backbone"]["norm_eval"] = True
    return cfg


def hint():
    """A term with an adapter without BatchNorm, for the same reason."""
    torch.manual_seed(0)
    return dict(
        student="backbone",
        teacher="backbone",
        loss=dict(type="mmkd_logit.TorchdistillLoss", name="MSELoss"),
        student_adapter=torch.nn.Conv2d(16, 32, 1),
    )


def gradients(model, inputs, samples):
    model.train()  # applies norm_eval
    losses = model(inputs, samples, mode="loss")
    sum(v for k, v in losses.items() if "loss" in k).backward()
    module = getattr(model, "module", model)
    return {name: p.grad.clone() for name, p in module.named_parameters()}


def compare_gradients(folder):
    cfg = Config(dict(model=dict(type="x")))
    prepare_launch(cfg, "pytorch")
    rank, share = dist.get_rank(), 8 // dist.get_world_size()
    inputs, samples = batch(n=8)
    own = slice(share * rank, share * rank + share)
    result = {}
    cases = {alpha: dict(alpha=alpha) for alpha in (0.0, 0.5, 1.0)}
    cases["KL"] = dict(alpha=0.5, loss_kd=dict(type="mmkd_logit.ScaledKLDivLoss", tau=3))
    cases["KL, tau inf"] = dict(loss_kd=dict(type="mmkd_logit.ScaledKLDivLoss", tau="inf"))
    several = [dict(config=wrn(widen_factor=width), checkpoint=None) for width in (1, 2)]
    for kind in ("logits", "probs"):
        loss = dict(type="mmkd_logit.ScaledKLDivLoss", tau=2)
        cases[f"ensemble, {kind}"] = dict(teacher=several, ensemble=kind, alpha=0.5, loss_kd=loss)
    for alpha in (0.0, 1.0):
        cases[f"features {alpha}"] = dict(alpha=alpha, feature_kd=[hint()])
    for alpha, settings in cases.items():
        model_cfg = distiller(student=without_batch_statistics(), **settings)
        ddp = MMDistributedDataParallel(build(model_cfg), device_ids=None)
        result[f"ddp {alpha}"] = gradients(ddp, inputs[own], samples[own])
        result[f"alone {alpha}"] = gradients(build(model_cfg), inputs[own], samples[own])
        result[f"joined {alpha}"] = gradients(build(model_cfg), inputs, samples)
        if alpha == 1.0:
            result["ddp names"] = [name for name, _ in ddp.named_parameters()]
    result["teacher"] = ddp.module.teachers[0].model.state_dict()
    torch.save(result, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 4])
def ranks(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("ddp")
    run_ranks(request.param, compare_gradients, folder)
    files = [folder / f"{rank}.pt" for rank in range(request.param)]
    return [torch.load(file, weights_only=False) for file in files]


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


def test_two_processes_train_and_test(workplace):
    """Plain training over two processes; its weights test the same with two and with one."""
    options = ["train_cfg.max_epochs=2", "train_dataloader.dataset.dataset.indices=125"]
    launcher = ("--launcher", "pytorch")
    words = [STUDENT, *launcher, "--results", "rows.jsonl", "--dump-logits"]
    run_ranks(2, train_tool.main, [*words, "--cfg-options", *options])
    folder = folder_of(STUDENT)
    final, measured = str(folder / "final.pth"), ("--out-item", "metrics", "--out")
    run_ranks(2, test_tool.main, [STUDENT, final, *launcher, *measured, "2.json"])
    test_tool.main([STUDENT, final, *measured, "1.json"])
    assert (workplace / "1.json").read_text() == (workplace / "2.json").read_text()
    assert (workplace / "rows.jsonl").read_text().count("\n") == 1  # one row, not one a rank
    dump_logits([STUDENT, final, "--out", "logits", "--cfg-options", *options])
    for split in ("train", "test"):  # the last batch of 125 is not the same for both ranks
        both, one = (read_dump(f"{place}/{split}.npz") for place in (f"{folder}/logits", "logits"))
        assert both.identity == one.identity
        for name in ("index", "label", "clean_label", "weight", "bias", "classes"):
            np.testing.assert_array_equal(getattr(both, name), getattr(one, name), err_msg=name)
        np.testing.assert_allclose(both.logits, one.logits, atol=1e-5)
        np.testing.assert_allclose(both.prelogits, one.prelogits, atol=1e-5)


def test_an_error_of_two_processes_is_one_line(workplace):
    words = ["configs/kd/wrn16-2_wrn10-1-thin_mse_digits.py", "--launcher", "pytorch"]
    ranks = start_ranks(2, train_tool.main, words)
    assert [rank.wait() for rank in ranks] == [1, 1]
    (line,) = "".join(rank.said for rank in ranks).splitlines()
    assert "work_dirs/wrn16-2_digits/seed0/final.pth does not exist" in line
