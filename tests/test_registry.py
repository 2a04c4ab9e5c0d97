"""Every component is found by its prefix alone."""

import ast
import importlib
import json
import pkgutil
import subprocess
import sys

import mmengine.registry
import pytest
from commands import PROJECT
from examples import needed_by

import mmkd_logit
import mmkd_logit.registry as ours

NODES = {
    "MODELS": ours.MODELS,
    "DATASETS": ours.DATASETS,
    "DATA_SAMPLERS": ours.DATA_SAMPLERS,
    "FUNCTIONS": ours.FUNCTIONS,
    "HOOKS": ours.HOOKS,
    "METRICS": ours.METRICS,
    "OPTIM_WRAPPERS": ours.OPTIM_WRAPPERS,
    "MODEL_WRAPPERS": ours.MODEL_WRAPPERS,
    "OPTIM_WRAPPER_CONSTRUCTORS": ours.OPTIM_WRAPPER_CONSTRUCTORS,
    "LOOPS": ours.LOOPS,
}
NET = dict(
    type="mmpretrain.ImageClassifier",
    backbone=dict(type="mmkd_logit.WideResNetCIFAR", depth=10, widen_factor=1),
    neck=dict(type="mmpretrain.GlobalAveragePooling"),
    head=dict(type="mmpretrain.LinearClsHead", num_classes=5, in_channels=64),
)
DIGITS = dict(type="mmkd_logit.Digits", pipeline=[dict(type="mmpretrain.PackInputs")])
# Names that configs rely on, and what they are built with. A component that is not here is built
# with an example of each argument without default.
COMPONENTS = {
    "DISTLoss": ("MODELS", {}),
    "DKDLoss": ("MODELS", {}),
    "LogitMSELoss": ("MODELS", {}),
    "LogitStandardization": ("MODELS", dict(loss=dict(type="mmkd_logit.LogitMSELoss"))),
    "ScaledBinaryKLDivLoss": ("MODELS", dict(tau=4)),
    "ScaledKLDivLoss": ("MODELS", dict(tau=4)),
    "WideResNetCIFAR": ("MODELS", dict(depth=10, widen_factor=1)),
    "MobileNetV2CIFAR": ("MODELS", dict(widen_factor=0.25)),
    "LogitDistiller": (
        "MODELS",
        dict(
            student=NET,
            teacher=dict(config=NET, checkpoint=None),
            loss_kd=dict(type="mmkd_logit.LogitMSELoss"),
        ),
    ),
    "TorchdistillAdapter": (
        "MODELS",
        dict(name="Translator4FactorTransfer", num_input_channels=4, num_output_channels=4),
    ),
    "TorchdistillLoss": ("MODELS", dict(name="ATLoss")),
    "Digits": ("DATASETS", dict(split="val")),
    "NoisyLabelDataset": (
        "DATASETS",
        dict(dataset=dict(type="mmkd_logit.Digits"), kind="symmetric", rate=0.4),
    ),
    "DataSubset": ("DATASETS", dict(dataset=dict(type="mmkd_logit.Digits"), per_class=0.1)),
    "RandomImages": ("DATASETS", dict(num_samples=2)),
    "AutocastOptimWrapper": ("OPTIM_WRAPPERS", None),
    "AtomicCheckpointHook": ("HOOKS", dict(interval=1, max_keep_ckpts=2)),
    "ChannelsLastHook": ("HOOKS", {}),
    "PreemptionHook": ("HOOKS", {}),
    "InMemoryDataset": ("DATASETS", dict(dataset=DIGITS)),
    "SeededDataset": ("DATASETS", dict(dataset=DIGITS)),
    "SeededSampler": (
        "DATA_SAMPLERS",
        dict(dataset=[1, 2, 3], sampler=dict(type="DefaultSampler", shuffle=True), seed=1),
    ),
    "batch_collate": ("FUNCTIONS", {}),
    "BatchPreprocessor": ("MODELS", {}),
    "CleanLabelAccuracy": ("METRICS", dict(topk=(1, 5))),
    "ClassifierSumHook": ("HOOKS", {}),
    "FinalCheckpointHook": ("HOOKS", {}),
    "FiniteLossHook": ("HOOKS", dict(limit=10)),
    "LabelNoiseHook": ("HOOKS", {}),
    "LazyRuntimeInfoHook": ("HOOKS", {}),
    "LogitOutputsHook": ("HOOKS", dict(prelogits="all")),
    "ResumeStateHook": ("HOOKS", {}),
    "OwnBestCheckpointHook": ("HOOKS", {}),
    "ProgressBarHook": ("HOOKS", {}),
    "SyncBuffersBeforeEvalHook": ("HOOKS", {}),
    "PreflightHook": ("HOOKS", {}),
    "TrainAccuracyHook": ("HOOKS", {}),
    "SequentialTeacherHook": ("HOOKS", dict(stages=[dict(begin=1, alpha=0.5)])),
    "ExpectedCalibrationError": ("METRICS", dict(num_bins=10)),
    "LogitDump": ("METRICS", dict(out_file="test.npz")),
    "TeacherAccuracy": ("METRICS", {}),
    "TeacherAgreement": ("METRICS", dict(topk=(1, 5))),
    "LogitDistance": ("METRICS", dict(quantiles=(0.5,))),
    "LogitStatistics": ("METRICS", dict(label="clean_label")),
    "NegativeLogLikelihood": ("METRICS", dict(of="teacher")),
    "PerClassAccuracy": ("METRICS", dict(out_file="classes.json")),
    "NoisyLabelAccuracy": ("METRICS", {}),
    "StudentGroup": ("MODELS", dict(students=dict(alone=NET), seeds=0)),
    "StudentGroupOptimConstructor": (
        "OPTIM_WRAPPER_CONSTRUCTORS",
        dict(optim_wrapper_cfg=dict(students=dict(alone=dict(optimizer=dict(type="SGD"))))),
    ),
    "MergedGroupsOptimConstructor": (
        "OPTIM_WRAPPER_CONSTRUCTORS",
        dict(optim_wrapper_cfg=dict(optimizer=dict(type="SGD", lr=0.1))),
    ),
    # These need processes or a Runner to be built; None means found only.
    "StudentGroupDDP": ("MODEL_WRAPPERS", None),
    "StudentGroupValLoop": ("LOOPS", None),
    "ResumableEpochBasedTrainLoop": ("LOOPS", None),
    "ResumableIterBasedTrainLoop": ("LOOPS", None),
}
# Names of version 0.1.0, which dumped configs hold.
OLD_NAMES = {"RunCheckHook": "PreflightHook", "SameBuffersHook": "SyncBuffersBeforeEvalHook"}


def components():
    """All that is found by its prefix: the registry and the arguments, by name."""
    found = {}
    for node, registry in NODES.items():
        registry.import_from_location()
        for name, component in registry.module_dict.items():
            ours = component.__module__.startswith("mmkd_logit.")  # not that of a test
            if ours and name not in COMPONENTS and name not in OLD_NAMES:
                found[name] = (node, needed_by(component))
    return {**COMPONENTS, **found}


BUILD = """
import json, sys
import mmengine.registry
components = json.loads(sys.argv[1])
order = sys.argv[2:]
import importlib
for package in order:
    registries = importlib.import_module(package + ".registry")
    assert package == "mmengine" or "mmkd_logit.models" not in sys.modules
    for name, (node, settings) in components.items():
        if node == "FUNCTIONS":  # they are looked up, not built, by the Runner at the root
            found = mmengine.registry.FUNCTIONS.get("mmkd_logit." + name)
        elif settings is None:
            found = getattr(registries, node).get("mmkd_logit." + name)
        else:
            registry = getattr(registries, node)
            found = type(registry.build(dict(type="mmkd_logit." + name, **settings)))
        assert found.__name__ == name, (found, name)
        assert found.__module__.startswith("mmkd_logit."), found.__module__
print(len(components) * len(order))
"""


def build_all(*packages):
    expected = components()
    command = [sys.executable, "-c", BUILD, json.dumps(expected), *packages]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == str(len(expected) * len(packages))


def test_fresh_process_by_mmengines_roots():
    build_all("mmengine")


def test_fresh_process_by_mmpretrains_children():
    build_all("mmpretrain")


def test_locations_hold_all_modules_with_components():
    found = components()
    for info in pkgutil.walk_packages(mmkd_logit.__path__, "mmkd_logit."):
        importlib.import_module(info.name)
    registered = {name: node for node, registry in NODES.items() for name in registry.module_dict}
    for old, new in OLD_NAMES.items():
        registry = NODES[registered.pop(old)]
        assert registry.get(f"mmkd_logit.{old}") is registry.get(f"mmkd_logit.{new}")
    assert registered == {name: node for name, (node, _) in found.items()}


def test_nodes_are_children_of_mmengines():
    for name, node in NODES.items():
        assert node.scope == "mmkd_logit"
        assert node.parent is getattr(mmengine.registry, name)
    others = {name for name in vars(ours) if name.isupper() and not name.startswith("MMENGINE_")}
    assert others == set(NODES)


def test_registry_imports_nothing_that_can_fail():
    """MMEngine hides an ImportError raised there."""
    arguments = "mmkd_logit.utils.arguments"
    ours = {"registry.py": {arguments}, "utils/arguments.py": set(), "version.py": set()}
    ours["utils/__init__.py"] = set()
    for file, known in ours.items():
        for node in ast.walk(ast.parse((PROJECT / "mmkd_logit" / file).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert not node.level
                names = [node.module]
            for name in names:
                package = name.partition(".")[0]
                plain = package in sys.stdlib_module_names
                assert package == "mmengine" or name in known or plain


def test_locations_hold_what_they_should():
    for name, (node, _) in components().items():
        module = NODES[node].module_dict[name].__module__
        assert any(module.startswith(location) for location in NODES[node]._locations), name


@pytest.mark.parametrize("kind", ["TRANSFORMS", "OPTIMIZERS", "PARAM_SCHEDULERS"])
def test_what_a_config_with_a_base_of_ours_holds_is_built_in_our_scope(kind):
    """Where there is no registry of the kind MMEngine warns and takes another one."""
    with getattr(mmengine.registry, kind).switch_scope_and_registry("mmkd_logit") as found:
        assert found.scope == "mmkd_logit"
    if kind == "TRANSFORMS":
        spec = dict(type="mmpretrain.PackInputs", _scope_="mmkd_logit")
        assert type(mmengine.registry.TRANSFORMS.build(spec)).__name__ == "PackInputs"
