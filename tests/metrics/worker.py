"""What each of two processes evaluates; run by torchrun, writes RANK.pt."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.dataset import DefaultSampler

sys.path.insert(0, os.path.dirname(__file__))
from test_expected_calibration_error import random_case, samples_of

from mmkd_logit.metrics import ExpectedCalibrationError


def main(folder, size):
    dist.init_process_group("gloo")
    scores, labels = random_case(7, n=size)
    indices = list(DefaultSampler(range(size), shuffle=False))
    metric = ExpectedCalibrationError()
    for start in range(0, len(indices), 4):
        batch = indices[start : start + 4]
        metric.process({}, samples_of(scores[batch], labels[batch]))
    value = metric.evaluate(size)["calibration/ece"]
    torch.save(dict(value=value, indices=indices), Path(folder, f"{dist.get_rank()}.pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
