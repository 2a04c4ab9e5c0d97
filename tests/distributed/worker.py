"""What each of the processes of test_ddp.py does; writes RANK.pt."""

import os
import sys

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from networks import batch, build, distiller, wrn

from mmkd_logit.engine.launch import prepare_launch


def without_batch_statistics():
    """BatchNorm in evaluation, since gloo has no SyncBN and parts are not the whole."""
    cfg = wrn()
    cfg["backbone"]["norm_eval"] = True
    return cfg


def hint():
    """A term with an adapter without BatchNorm, for the same reason."""
    torch.manual_seed(0)
    return dict(
        student="backbone",
        teacher="backbone",
        loss=dict(type="mmkd_logit.TorchdistillLoss", name="MSELoss"),
        student_adapter=torch.nn.Conv2d(16, 32, 1),
    )


def gradients(model, inputs, samples):
    model.train()  # applies norm_eval
    losses = model(inputs, samples, mode="loss")
    sum(v for k, v in losses.items() if "loss" in k).backward()
    module = getattr(model, "module", model)
    return {name: p.grad.clone() for name, p in module.named_parameters()}


def main(folder):
    cfg = Config(dict(model=dict(type="x")))
    prepare_launch(cfg, "pytorch")
    rank, share = dist.get_rank(), 8 // dist.get_world_size()
    inputs, samples = batch(n=8)
    own = slice(share * rank, share * rank + share)
    result = dict(backend=dist.get_backend(), wrapper=dict(cfg.model_wrapper_cfg))
    cases = {alpha: dict(alpha=alpha) for alpha in (0.0, 0.5, 1.0)}
    cases["KL"] = dict(alpha=0.5, loss_kd=dict(type="mmkd_logit.ScaledKLDivLoss", tau=3))
    cases["KL, tau inf"] = dict(loss_kd=dict(type="mmkd_logit.ScaledKLDivLoss", tau="inf"))
    several = [dict(config=wrn(widen_factor=width), checkpoint=None) for width in (1, 2)]
    for kind in ("logits", "probs"):
        loss = dict(type="mmkd_logit.ScaledKLDivLoss", tau=2)
        cases[f"ensemble, {kind}"] = dict(teacher=several, ensemble=kind, alpha=0.5, loss_kd=loss)
    for alpha in (0.0, 1.0):
        cases[f"features {alpha}"] = dict(alpha=alpha, feature_kd=[hint()])
    for alpha, settings in cases.items():
        model_cfg = distiller(student=without_batch_statistics(), **settings)
        ddp = MMDistributedDataParallel(build(model_cfg), device_ids=None)
        result[f"ddp {alpha}"] = gradients(ddp, inputs[own], samples[own])
        result[f"alone {alpha}"] = gradients(build(model_cfg), inputs[own], samples[own])
        result[f"joined {alpha}"] = gradients(build(model_cfg), inputs, samples)
        if alpha == 1.0:
            result["ddp names"] = [name for name, _ in ddp.named_parameters()]
    result["teacher"] = ddp.module.teachers[0].model.state_dict()
    torch.save(result, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
