"""Child registries of MMEngine's in the scope ``mmkd_logit``, one for each kind we register.

MMEngine imports this module by itself when it meets the prefix ``mmkd_logit.`` and hides an
ImportError raised here, so nothing but MMEngine is imported, and a file of ours that needs Python
alone; the components follow lazily from ``locations``.
"""

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import FUNCTIONS as MMENGINE_FUNCTIONS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODEL_WRAPPERS as MMENGINE_MODEL_WRAPPERS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import Registry

from mmkd_logit.utils.arguments import explain_arguments


class _Registry(Registry):
    """Its classes say in a line which arguments they take, where one is misspelt or missing."""

    def _register_module(self, module, *args, **kwargs):  # type: ignore[no-untyped-def]
        super()._register_module(module, *args, **kwargs)
        if isinstance(module, type):
            explain_arguments(module)


MODELS = _Registry(
    "model",
    parent=MMENGINE_MODELS,
    scope="mmkd_logit",
    locations=["mmkd_logit.losses", "mmkd_logit.models"],
)
DATASETS = _Registry(
    "dataset", parent=MMENGINE_DATASETS, scope="mmkd_logit", locations=["mmkd_logit.datasets"]
)
DATA_SAMPLERS = _Registry(
    "data sampler",
    parent=MMENGINE_DATA_SAMPLERS,
    scope="mmkd_logit",
    locations=["mmkd_logit.datasets"],
)
FUNCTIONS = _Registry(
    "function", parent=MMENGINE_FUNCTIONS, scope="mmkd_logit", locations=["mmkd_logit.datasets"]
)
HOOKS = _Registry(
    "hook",
    parent=MMENGINE_HOOKS,
    scope="mmkd_logit",
    locations=[
        "mmkd_logit.hooks",
        "mmkd_logit.engine.save",
        "mmkd_logit.engine.resume",
        "mmkd_logit.engine.preemption",
        "mmkd_logit.engine.preflight",
    ],
)
METRICS = _Registry(
    "metric", parent=MMENGINE_METRICS, scope="mmkd_logit", locations=["mmkd_logit.metrics"]
)
OPTIM_WRAPPERS = _Registry(
    "optim_wrapper",
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope="mmkd_logit",
    locations=["mmkd_logit.optim"],
)
MODEL_WRAPPERS = _Registry(
    "model_wrapper",
    parent=MMENGINE_MODEL_WRAPPERS,
    scope="mmkd_logit",
    locations=["mmkd_logit.models"],
)
OPTIM_WRAPPER_CONSTRUCTORS = _Registry(
    "optimizer wrapper constructor",
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope="mmkd_logit",
    locations=["mmkd_logit.models"],
)
LOOPS = _Registry(
    "loop",
    parent=MMENGINE_LOOPS,
    scope="mmkd_logit",
    locations=[
        "mmkd_logit.engine.runner",
        "mmkd_logit.models",
    ],
)
