"""A run of two processes over gloo, one of which gets a signal; started by torchrun."""

import sys

import torch
import torch.distributed as dist
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from stop_hooks import SignalAt


class Line(BaseModel):
    """One weight."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, mode="loss"):
        return dict(loss=(self.weight - inputs).square().mean())


def main(folder, name):
    dist.init_process_group("gloo")
    loader = dict(
        dataset=torch.arange(400.0),
        batch_size=2,
        sampler=dict(type="DefaultSampler", shuffle=False),
        collate_fn=lambda numbers: dict(inputs=torch.stack(numbers)),
    )
    Runner(
        model=MMDistributedDataParallel(Line()),
        work_dir=folder,
        launcher="pytorch",
        train_dataloader=loader,
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=100),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.01)),
        custom_hooks=[SignalAt(3, name, rank=1), dict(type="mmkd_logit.PreemptionHook")],
        log_level="ERROR",
    ).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
