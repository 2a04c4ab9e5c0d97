"""Students that share batches over two processes."""

from pathlib import Path

import torch
from commands import Tiny, train, train_tool
from processes import run_ranks

from mmkd_logit.engine.group import main as train_group
from mmkd_logit.engine.results import read_lines


def test_two_processes_give_what_each_run_gives_on_two(workplace):
    tiny = Tiny()
    train(tiny.teacher)
    kl = ["--cfg-options", "model.loss_kd.type=mmkd_logit.ScaledKLDivLoss", "model.loss_kd.tau=3"]
    lines = [tiny.kd, "--work-dir", "group/mse"], [tiny.kd, "--work-dir", "group/kl", *kl]
    Path("runs.txt").write_text("".join(" ".join(line) + "\n" for line in lines))
    launcher = ["--launcher", "pytorch"]
    run_ranks(2, train_group, ["runs.txt", "--results", "rows.jsonl", *launcher])
    words = [tiny.kd, "--work-dir", "alone/kl", "--results", "alone.jsonl"]
    run_ranks(2, train_tool.main, [*words, *launcher, *kl])
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
