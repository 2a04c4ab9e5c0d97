"""Students that share batches over two processes."""

import sys
from pathlib import Path

import torch
from commands import Tiny, train
from processes import run

from mmkd_logit.engine.results import read_lines


def torchrun(*words):
    torchrun = [sys.executable, "-m", "mmkd_logit.engine.launch", "--standalone"]
    done = run(*torchrun, "--nproc_per_node=2", *words)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_processes_give_what_each_run_gives_on_two(workplace):
    tiny = Tiny()
    train(tiny.teacher)
    kl = "--cfg-options model.loss_kd.type=mmkd_logit.ScaledKLDivLoss model.loss_kd.tau=3"
    lines = [f"{tiny.kd} --work-dir group/mse\n", f"{tiny.kd} --work-dir group/kl {kl}\n"]
    Path("runs.txt").write_text("".join(lines))
    launcher = ("--launcher", "pytorch")
    torchrun("tools/train_group.py", "runs.txt", "--results", "rows.jsonl", *launcher)
    torchrun(
        *("tools/train.py", tiny.kd, "--work-dir", "alone/kl", "--results", "alone.jsonl"),
        *(*launcher, *kl.split()),
    )
    rows, (alone,) = read_lines(Path("rows.jsonl")), read_lines(Path("alone.jsonl"))
    assert [row["processes"] for row in rows] == [2, 2]
    assert rows[1]["test"] == alone["test"]
    assert rows[1]["fingerprint"] == alone["fingerprint"]
    states = [
        torch.load(Path(folder, "final.pth"), weights_only=False)["state_dict"]
        for folder in ("group/kl", "alone/kl", "group/mse")
    ]
    for key, value in states[1].items():
        assert torch.equal(states[0][key], value), key
    assert not torch.equal(states[0]["head.fc.weight"], states[2]["head.fc.weight"])
