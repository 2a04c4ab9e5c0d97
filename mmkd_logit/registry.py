"""Child registries of MMEngine's in the scope ``mmkd_logit``, one for each kind we register.

MMEngine imports this module by itself when it meets the prefix ``mmkd_logit.`` and hides an
ImportError raised here, so nothing but MMEngine is imported; the components follow lazily from
``locations``.
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

MODELS = Registry(
    "model",
    parent=MMENGINE_MODELS,
    scope="mmkd_logit",
    locations=["mmkd_logit.losses", "mmkd_logit.models"],
)
DATASETS = Registry(
    "dataset", parent=MMENGINE_DATASETS, scope="mmkd_logit", locations=["mmkd_logit.datasets"]
)
DATA_SAMPLERS = Registry(
    "data sampler",
    parent=MMENGINE_DATA_SAMPLERS,
    scope="mmkd_logit",
    locations=["mmkd_logit.datasets"],
)
FUNCTIONS = Registry(
    "function", parent=MMENGINE_FUNCTIONS, scope="mmkd_logit", locations=["mmkd_logit.datasets"]
)
HOOKS = Registry("hook", parent=MMENGINE_HOOKS, scope="mmkd_logit", locations=["mmkd_logit.hooks"])
METRICS = Registry(
    "metric", parent=MMENGINE_METRICS, scope="mmkd_logit", locations=["mmkd_logit.metrics"]
)
OPTIM_WRAPPERS = Registry(
    "optim_wrapper",
    parent=MMENGINE_OPTIM_WRAPPERS,
    scope="mmkd_logit",
    locations=["mmkd_logit.optim"],
)
MODEL_WRAPPERS = Registry(
    "model_wrapper",
    parent=MMENGINE_MODEL_WRAPPERS,
    scope="mmkd_logit",
    locations=["mmkd_logit.models"],
)
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    "optimizer wrapper constructor",
    parent=MMENGINE_OPTIM_WRAPPER_CONSTRUCTORS,
    scope="mmkd_logit",
    locations=["mmkd_logit.models"],
)
LOOPS = Registry(
    "loop",
    parent=MMENGINE_LOOPS,
    scope="mmkd_logit",
    locations=[
        "mmkd_logit.engine.resumable_epoch_based_train_loop",
        "mmkd_logit.engine.resumable_iter_based_train_loop",
        "mmkd_logit.engine.student_group_val_loop",
    ],
)
