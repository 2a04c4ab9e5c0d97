"""What each of several processes measures and exports; main() is called in each."""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from logit_samples import logit_case, samples_of
from mmengine.dataset import DefaultSampler

sys.path.insert(0, os.path.dirname(__file__))
from test_export import batches_of, export_to
from test_logit_metrics import all_metrics


def main(folder, *sizes):
    dist.init_process_group("gloo")
    os.chdir(folder)  # where MMEngine exchanges results
    found = {}
    for size in map(int, sizes):
        indices = list(DefaultSampler(range(size), shuffle=False))
        found[size] = dict(metrics=measure(size, indices), indices=indices)
        export(Path(folder, str(size)), size, indices)
    torch.save(found, Path(folder, f"{dist.get_rank()}.pt"))
    dist.destroy_process_group()


def measure(size, indices):
    samples, metrics = samples_of(logit_case(17, n=size)), {}
    for metric in all_metrics(out_file=f"classes_{size}_{dist.get_rank()}.json"):
        for begin in range(0, len(indices), 4):
            metric.process(None, [samples[i] for i in indices[begin : begin + 4]])
        metrics.update(metric.evaluate(size))
    return metrics


def export(folder, size, indices):
    folder.mkdir(exist_ok=True)
    export_to(folder / "all.npz", batches_of(indices, 4, size), size)
    rest = indices[:-2] if dist.get_rank() == dist.get_world_size() - 1 else indices
    try:
        export_to(folder / "short.npz", batches_of(rest, 4, size), size)
    except ValueError as error:
        Path(folder, f"{dist.get_rank()}.refused").write_text(str(error))
