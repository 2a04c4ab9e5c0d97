"""What each of the processes of test_sequential.py does; writes RANK.pt."""

import os
import sys

import torch
import torch.distributed as dist
from mmengine.config import Config
from runs import sequential_run, steps_of

from mmkd_logit.engine.launch import prepare_launch


def main(folder):
    prepare_launch(Config(dict(model=dict(type="x"))), "pytorch")
    rank, later = dist.get_rank(), int(dist.get_rank() > 0)
    result = {}
    for name, begins in (("together", (1, 2)), ("apart", (1 + later, 2 + later))):
        cfg = sequential_run(
            os.path.join(folder, name), begins, batch_size=16 // dist.get_world_size()
        )
        if name == "apart":
            cfg.train_cfg.max_epochs = 4  # the later processes must reach its last stage
        prepare_launch(cfg, "pytorch")
        result[name] = steps_of(cfg)
    torch.save(result, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
