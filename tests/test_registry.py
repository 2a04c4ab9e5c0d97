"""Every component is found by its prefix alone."""

import ast
import importlib
import json
import pkgutil
import subprocess
import sys

import mmengine.registry
from bad_input.components import RIGHT
from commands import PROJECT
from examples import needed_by

import mmkd_logit
import mmkd_logit.registry as ours

NODES = {
    name: node
    for name, node in vars(ours).items()
    if name.isupper() and not name.startswith("MMENGINE_")
}
# They need processes, an optimizer or a Runner to be built.
FOUND_ONLY = {"AutocastOptimWrapper", "StudentGroupDDP", "StudentGroupValLoop"}
FOUND_ONLY |= {"ResumableEpochBasedTrainLoop", "ResumableIterBasedTrainLoop"}
# Names of version 0.1.0, which dumped configs hold.
OLD_NAMES = {"RunCheckHook": "PreflightHook", "SameBuffersHook": "SyncBuffersBeforeEvalHook"}


def components():
    """All that is found by its prefix: the registry, and right arguments or None, by name."""
    found = {}
    for node, registry in NODES.items():
        registry.import_from_location()
        for name, component in registry.module_dict.items():
            ours = component.__module__.startswith("mmkd_logit.")  # not that of a test
            if ours and name not in OLD_NAMES:
                settings = None
                if name not in FOUND_ONLY:
                    settings = RIGHT[name] if name in RIGHT else needed_by(component)
                found[name] = (node, settings)
    assert found.keys() >= FOUND_ONLY | {name for name in RIGHT if "/" not in name}
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
    words = json.dumps(expected).replace('"PackInputs"', '"mmpretrain.PackInputs"')
    command = [sys.executable, "-c", BUILD, words, *packages]
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
    assert len(NODES) == 10


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
