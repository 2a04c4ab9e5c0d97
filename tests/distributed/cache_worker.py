"""What each of the processes of test_cache.py does; writes RANK.pt."""

import os
import sys

import numpy as np
import torch
import torch.distributed as dist
from mmengine.config import Config
from networks import build, distiller, wrn

from mmkd_logit.datasets.in_memory import SampleBatch, Views
from mmkd_logit.engine.launch import prepare_launch

IMAGES, VIEWS = 24, 6
PREPROCESSOR = dict(type="mmpretrain.ClsDataPreprocessor", mean=[120.0] * 3, std=[60.0] * 3)


def main(folder):
    cfg = Config(dict(model=dict(type="x")))
    prepare_launch(cfg, "pytorch")
    rank = dist.get_rank()
    pictures = torch.randn(IMAGES * VIEWS, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    spec = dict(
        config=wrn(widen_factor=2, data_preprocessor=PREPROCESSOR),
        checkpoint=os.path.join(folder, "teacher.pth"),
        micro_batch=16,
    )
    student = wrn(data_preprocessor=PREPROCESSOR)
    cache = dict(storage="disk", root=os.path.join(folder, "caches"))
    cached = build(distiller(student=student, teacher=dict(spec, cache=cache)))
    plain = build(distiller(student=student, teacher=spec))
    # In step, so that both create the folder, and ask for some of the same pictures at once.
    dist.barrier()
    draw = np.random.default_rng(rank)
    right, logits = True, None
    for _ in range(30):
        numbers = draw.permutation(IMAGES * VIEWS)[:20]
        views = Views("drawn", IMAGES, VIEWS, *np.divmod(numbers, VIEWS))
        samples = SampleBatch(torch.zeros(20, dtype=torch.int64), views.index, (8, 8), views=views)
        logits = cached.teacher_logits(pictures[numbers], samples)
        right &= torch.equal(logits, plain.teacher_logits(pictures[numbers]))
    dist.barrier()
    everything = np.arange(IMAGES * VIEWS)
    views = Views("drawn", IMAGES, VIEWS, *np.divmod(everything, VIEWS))
    teacher = cached.teachers[0]
    before = teacher.cache.misses
    logits = teacher(pictures, views)
    result = dict(right=right, logits=logits, missing=teacher.cache.misses - before)
    torch.save(dict(result, **teacher.cache.report()), os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
