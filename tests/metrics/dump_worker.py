"""What each of several processes dumps."""

import os
import sys
from pathlib import Path

import torch.distributed as dist
from mmengine.dataset import DefaultSampler

sys.path.insert(0, os.path.dirname(__file__))
from test_logit_dump import batches_of, dump_of


def main(folder, batch_size, *sizes):
    dist.init_process_group("gloo")
    for size in map(int, sizes):
        dump(Path(folder, str(size)), size, int(batch_size))
    dist.destroy_process_group()


def dump(folder, size, batch_size):
    folder.mkdir(exist_ok=True)
    indices = list(DefaultSampler(range(size), shuffle=False))
    dump_of(folder / "all.npz", batches_of(indices, batch_size, size), size)
    rest = indices[:-2] if dist.get_rank() == dist.get_world_size() - 1 else indices
    try:
        dump_of(folder / "short.npz", batches_of(rest, batch_size, size), size)
    except ValueError as error:
        Path(folder, f"{dist.get_rank()}.refused").write_text(str(error))
