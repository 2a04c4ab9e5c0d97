"""All metrics of logits in each of several processes; writes RANK.pt."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from logit_samples import logit_case, samples_of
from mmengine.dataset import DefaultSampler

sys.path.insert(0, os.path.dirname(__file__))
from test_logit_metrics import all_metrics


def main(folder, *sizes):
    dist.init_process_group("gloo")
    os.chdir(folder)  # where MMEngine exchanges results
    found = {}
    for size in map(int, sizes):
        indices = list(DefaultSampler(range(size), shuffle=False))
        samples = samples_of(logit_case(17, n=size))
        metrics, indices = {}, [int(index) for index in indices]
        for metric in all_metrics(out_file=f"classes_{size}_{dist.get_rank()}.json"):
            for begin in range(0, len(indices), 4):
                metric.process(None, [samples[i] for i in indices[begin : begin + 4]])
            metrics.update(metric.evaluate(size))
        found[size] = dict(metrics=metrics, indices=indices)
    torch.save(found, Path(folder, f"{dist.get_rank()}.pt"))
    dist.destroy_process_group()
