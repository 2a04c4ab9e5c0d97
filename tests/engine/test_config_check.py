"""The check of configs lets alone what MMEngine would make something of.

What it refuses is in ``tests/bad_input``.
"""

import copy

import pytest
from mmengine.hooks import EMAHook
from mmengine.registry import MODELS, Registry
from runs import digits_distiller, run_config

from mmkd_logit.engine.preflight import check_config


@pytest.mark.parametrize(
    "changes",
    [
        dict(train_dataloader2=dict(), val_dataloader_b=dict(), train_dataset=dict(), lr=0.1),
        dict(_optim_wraper=dict(), my_pipeline=[], train_pipelines=[]),
        dict(
            param_scheduler=[
                dict(type="LinearLR", begin=0, end=0.5, convert_to_iter_based=True),
                dict(type="MultiStepLR", milestones=[0.5, 1.5], convert_to_iter_based=True),
                dict(type="CosineAnnealingParamScheduler", param_name="weight_decay", T_max=1.5),
            ]
        ),
        dict(default_hooks=dict(checkpoint=dict(type="CheckpointHook", interval=-1), timer=None)),
        dict(default_hooks=dict(checkpoint=dict(type="CheckpointHook", max_keep_ckpts=0))),
        dict(custom_hooks=[EMAHook(), dict(type="EMAHook", gamma=100, priority="LOW")]),
        dict(optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1), clip_grad=dict(max_norm=1e9))),
        dict(
            optim_wrapper=dict(
                optimizer=dict(type="SGD", lr=0.0), clip_grad=dict(max_norm=float("inf"))
            )
        ),
        dict(train_cfg=dict(type="mmengine.runner.IterBasedTrainLoop", max_iters=5)),
        dict(val_evaluator=[dict(type="Accuracy"), dict(type="SingleLabelMetric")]),
        dict(env_cfg=dict(mp_cfg=dict(mp_start_method="spawn", opencv_num_threads=-1))),
        dict(val_cfg=None, val_dataloader=None, val_evaluator=None),
        dict(load_from="https://somewhere/x.pth", log_level="DEBUG"),
        dict(log_level=20),
        dict(compile=True, find_unused_parameters=True),
        dict(visualizer=dict(type="Visualizer", vis_backends=[dict(type="LocalVisBackend")])),
    ],
)
def test_right(changes):
    cfg = run_config(digits_distiller(), "work", **copy.deepcopy(changes))
    check_config(cfg)


def test_a_scope_of_ones_own():
    Registry("model", scope="a_scope_of_ones_own", parent=MODELS, locations=[])
    cfg = run_config(digits_distiller(), "work", default_scope="a_scope_of_ones_own")
    for name in ("train", "val", "test"):  # what a scope does not have has another one's name
        cfg[f"{name}_dataloader"]["dataset"]["pipeline"] = [dict(type="mmpretrain.PackInputs")]
        cfg[f"{name}_evaluator"] = dict(type="mmpretrain.Accuracy")
    check_config(cfg)
