"""Child registries of MMEngine's in the scope ``mmkd_logit``, one for each kind we register.

MMEngine imports this module by itself when it meets the prefix ``mmkd_logit.`` and hides an
ImportError raised here, so nothing but MMEngine is imported, and a file of ours that needs Python
alone; the components follow lazily from ``locations``.
"""

from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine import registry as mmengine_registries
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry
from mmengine.registry import registry as _mmengines

from mmkd_logit.utils.arguments import did_you_mean, explain_arguments


def _explain_missing(kind: Any, known: Iterable[str]) -> str:
    if str(kind).rpartition(".")[2] == "SingleTeacherDistill":
        return "; mmrazor's is here mmkd_logit.LogitDistiller, see docs/from-mmrazor.md"
    hint = did_you_mean(kind, known) or "; check its spelling and scope."
    return f"{hint} The module of a class of your own is named in custom_imports"


class _Registry(Registry):
    """Its classes say in a line which arguments they take, where one is misspelt or missing."""

    def _register_module(self, module, *args, **kwargs):  # type: ignore[no-untyped-def]
        super()._register_module(module, *args, **kwargs)
        if isinstance(module, type):
            explain_arguments(module)


def find_class(what: str, registry: Registry, kind: Any) -> Any:
    """Return the class that is built for a type in the default scope, or raise ValueError."""
    if kind is None:
        raise ValueError(f"{what} has no type; say which component it is with type=...")
    if callable(kind):
        return kind
    # As MMEngine's build does, but without a warning where a package has no registry of the kind.
    root, child = registry.root, None
    scope = DefaultScope.get_current_instance()
    if scope is not None:
        with suppress(ImportError):
            import_module(f"{scope.scope_name}.registry")
        child = root._search_child(scope.scope_name)
    place = registry if child is None else child  # an empty one is false
    try:
        found = place.get(kind) if isinstance(kind, str) else None
    except Exception:  # MMEngine raises anything where a module cannot be imported
        found = None
    if found is None:
        ours = root._search_child("mmkd_logit")
        known = [f"mmkd_logit.{name}" for name in (ours.module_dict if ours else ())]
        for each in (place, place.parent):
            known += each.module_dict if each else ()
        hint = _explain_missing(kind, known)
        raise ValueError(f"{what}.type: no {registry.name} {kind!r} is registered{hint}")
    return found


def _child(parent: Registry, *modules: str) -> _Registry:
    places = [f"mmkd_logit.{module}" for module in modules]
    return _Registry(parent.name, parent=parent, scope="mmkd_logit", locations=places)


MODELS = _child(mmengine_registries.MODELS, "losses", "models")
DATASETS = _child(mmengine_registries.DATASETS, "datasets")
DATA_SAMPLERS = _child(mmengine_registries.DATA_SAMPLERS, "datasets")
FUNCTIONS = _child(mmengine_registries.FUNCTIONS, "datasets")
HOOKS = _child(
    mmengine_registries.HOOKS,
    *("hooks", "engine.save", "engine.resume", "engine.preemption", "engine.preflight"),
)
METRICS = _child(mmengine_registries.METRICS, "metrics")
OPTIM_WRAPPERS = _child(mmengine_registries.OPTIM_WRAPPERS, "optim")
MODEL_WRAPPERS = _child(mmengine_registries.MODEL_WRAPPERS, "models")
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    mmengine_registries.OPTIM_WRAPPER_CONSTRUCTORS, "optim", "models"
)
LOOPS = _child(mmengine_registries.LOOPS, "engine.runner", "models")
# Empty ones. What a config takes from a ``_base_`` of ``mmkd_logit::`` is built in our scope,
# and MMEngine warns where that has no registry of the kind.
for _kind in ("TRANSFORMS", "OPTIMIZERS", "PARAM_SCHEDULERS"):
    _child(getattr(mmengine_registries, _kind), "registry")


# MMEngine reads ``PACKAGE::PATH`` in ``_base_`` and ``get_config`` of the packages listed there.
_mmengines.MODULE2PACKAGE["mmkd_logit"] = "mmkd_logit"


def config_path(name: str) -> Path:
    """Return the file that a config's name stands for, also where it is ``mmkd_logit::PATH``."""
    scope, _, path = name.rpartition("::")
    ours = Path(__file__).parent / ".mim" / "configs"  # in a checkout a link to its configs
    return ours / path if scope == "mmkd_logit" else Path(name)


def load_config(name: str) -> Config:
    """Read a config file, or ``mmpretrain::PATH`` or ``mmkd_logit::PATH`` of a package."""
    path = config_path(name)
    packaged = "::" in name and not path.is_file()
    if not packaged and not path.is_file():
        raise FileNotFoundError(f"the config {name} does not exist")
    try:
        if not packaged:
            return Config.fromfile(path)
        from mmengine.hub import get_config  # imports the Runner, which a registry does not need

        return get_config(name)
    except Exception as error:
        missing = isinstance(error, (AssertionError, FileNotFoundError, ValueError))
        if packaged and missing:
            package = name.partition("::")[0]
            raise FileNotFoundError(f"{package} has no config {name} ({error})") from None
        if isinstance(error, FileNotFoundError):  # of a base, which it names
            raise
        text = " ".join(str(error).split())
        raise ValueError(
            f"the config {name} cannot be read ({type(error).__name__}: {text})"
        ) from error
