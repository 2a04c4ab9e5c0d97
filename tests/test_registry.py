"""Every component is found by its prefix alone."""

import ast
import importlib
import json
import pkgutil
import subprocess
import sys

import mmengine.registry
import pytest
from bad_input.components import RIGHT
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
# These need processes, a Runner or an optimizer to be built.
FOUND_ONLY = {"AutocastOptimWrapper", "StudentGroupDDP", "StudentGroupValLoop"}
FOUND_ONLY |= {"ResumableEpochBasedTrainLoop", "ResumableIterBasedTrainLoop"}
# Names of version 0.1.0, which dumped configs hold.
OLD_NAMES = {"RunCheckHook": "PreflightHook", "SameBuffersHook": "SyncBuffersBeforeEvalHook"}


def components():
    """All that is found by its prefix: the registry and the arguments, by name.

    A component without right arguments is built with an example of each that has no default.
    """
    found = {}
    for node, registry in NODES.items():
        registry.import_from_location()
        for name, component in registry.module_dict.items():
            if name in OLD_NAMES or not component.__module__.startswith("mmkd_logit."):
                continue  # or of a test
            if name in FOUND_ONLY:
                settings = None
            else:
                settings = RIGHT[name] if name in RIGHT else needed_by(component)
            found[name] = (node, settings)
    # Names that configs rely on.
    assert {*FOUND_ONLY, *(name for name in RIGHT if "/" not in name)} <= found.keys()
    return found


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
    others = {name for name in vars(ours) if name.isupper()}
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
