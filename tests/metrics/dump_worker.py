"""What each of two processes dumps; run by torchrun."""

import os
import sys
from pathlib import Path

import torch.distributed as dist
from mmengine.dataset import DefaultSampler

sys.path.insert(0, os.path.dirname(__file__))
from test_logit_dump import batches_of, dump_of


def main(folder, size, batch_size):
    dist.init_process_group("gloo")
    indices = list(DefaultSampler(range(size), shuffle=False))
    dump_of(f"{folder}/two.npz", batches_of(indices, batch_size, size), size)
    rest = indices[:-2] if dist.get_rank() else indices
    try:
        dump_of(f"{folder}/short.npz", batches_of(rest, batch_size, size), size)
    except ValueError as error:
        Path(folder, f"{dist.get_rank()}.refused").write_text(str(error))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
