"""Teachers that are trained first, over two processes."""

import os
import re
import signal
import time
from pathlib import Path

from commands import Tiny, folder_of, taught_by, train_tool
from processes import run_ranks, start_ranks

from mmkd_logit.engine.fingerprint import read_run, weights_hash
from mmkd_logit.engine.results import read_lines

LONG = """
train_cfg = dict(max_epochs=10, val_interval=100)
train_dataloader = dict(dataset=dict(dataset=dict(indices=320)))
"""


def test_two_processes_agree_on_what_is_there_or_cut_off(workplace):
    tiny = Tiny()
    second = taught_by(tiny.teacher, tiny.kd, LONG)
    third = taught_by(second, tiny.kd)
    words = [third, "--train-teacher", "--results", "runs.jsonl", "--resume"]
    words += ["--launcher", "pytorch"]
    folders = [folder_of(config) for config in (tiny.teacher, second, third)]
    ranks = start_ranks(2, train_tool.main, words)
    end = time.monotonic() + 300
    while not (folders[1] / "last_checkpoint").is_file():
        assert time.monotonic() < end
        time.sleep(0.01)
    for rank in ranks:
        os.kill(rank.pid, signal.SIGKILL)
    assert [rank.wait() for rank in ranks] == [-signal.SIGKILL] * 2, ranks[0].said[-3000:]
    assert not (folders[1] / "final.pth").exists()
    epoch = int(Path((folders[1] / "last_checkpoint").read_text()).stem.split("_")[1])

    # Each line once, not once a process.
    said = "".join(run_ranks(2, train_tool.main, words))
    assert re.findall(r"^the teacher (\S+)/final.pth (.*)$", said, re.MULTILINE) == [
        (str(folders[0]), "was trained before"),
        (str(folders[1]), "goes on"),
    ]
    rows = read_lines(Path("runs.jsonl"))
    assert [row["weights"] for row in rows] == [weights_hash(f / "final.pth") for f in folders]
    assert [row["teachers"] for row in rows[1:]] == [[row["weights"]] for row in rows[:2]]
    assert [row["processes"] for row in rows] == [2] * 3
    assert read_run(folders[2])["processes"] == 2
    assert rows[1]["resumed_at"] == epoch * rows[1]["iterations"] // 10
