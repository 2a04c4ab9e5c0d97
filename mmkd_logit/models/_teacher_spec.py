"""What a user may write for a teacher, turned into a model config and a checkpoint."""

import copy
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict

from mmkd_logit._arguments import refuse_unknown, type_name

_FORMS = (
    "Write a teacher as dict(config='configs/wrn/wrn28-4.py', checkpoint='PATH or URL'), as "
    "dict(config=dict(type='ImageClassifier', ...), checkpoint=...), as the name of an mmpretrain "
    "model ('resnet50_8xb32_in1k'), or as a list of these for an ensemble."
)

OPTIONS = ("channels_last", "autocast", "compile", "micro_batch", "cache")


class TeacherSpec(NamedTuple):
    """A resolved teacher.

    Attributes:
        name: How messages call it.
        model: Config of the classifier.
        checkpoint: Where its weights are; None when the model brings its own.
        scope: Registry scope in which the model is built.
        options: How it computes.
    """

    name: str
    model: dict
    checkpoint: str | None
    scope: str
    options: dict[str, Any]


def resolve_teacher(spec: str | dict) -> TeacherSpec:
    """Read the config that a teacher names.

    Args:
        spec: One of the forms of :class:`mmkd_logit.models.FrozenTeacher`.

    Raises:
        ValueError: If the form is not one of those, or no checkpoint is named.
        FileNotFoundError: If the config file does not exist.
    """
    if isinstance(spec, str):
        spec = dict(config=spec)
    if not isinstance(spec, dict) or ("config" not in spec and "type" not in spec):
        raise ValueError(f"cannot read a teacher from {spec!r}. {_FORMS}")
    if "config" not in spec:
        spec = dict(config=spec)
    refuse_unknown("a teacher", spec, ("config", "checkpoint", *OPTIONS))
    options = {key: copy.deepcopy(spec[key]) for key in OPTIONS if key in spec}

    name, cfg, published = _read_config(spec["config"])
    model = cfg.get("model", cfg)
    model = copy.deepcopy(model.to_dict() if isinstance(model, ConfigDict) else dict(model))
    preprocessor = cfg.get("data_preprocessor")
    while type_name(model) == "LogitDistiller":
        preprocessor = model.get("data_preprocessor", preprocessor)
        model = model["student"]  # a distilled student teaches as the plain network it is
    if preprocessor is not None:
        model.setdefault("data_preprocessor", copy.deepcopy(dict(preprocessor)))
    if model.get("data_preprocessor"):
        model["data_preprocessor"].pop("batch_augments", None)
    model.pop("train_cfg", None)  # batch augmentation is the student's, both see the same images

    checkpoint = _find_checkpoint(spec, model, published, name)
    return TeacherSpec(name, model, checkpoint, cfg.get("default_scope") or "mmpretrain", options)


def _read_config(config: Any) -> tuple[str, dict, str | None]:
    """Return a name, the config and, for a published model, where its weights are."""
    if isinstance(config, dict):
        model = config.get("model", config)
        if not isinstance(model, dict) or "type" not in model:
            raise ValueError(
                f"a teacher's config needs a model with a type, got {config!r}. {_FORMS}"
            )
        backbone = model.get("backbone") or {}
        return str(backbone.get("type") or model.get("type")), config, None
    if not isinstance(config, str):
        raise ValueError(f"cannot read a teacher's config from {config!r}. {_FORMS}")
    if Path(config).suffix in (".py", ".yaml", ".yml", ".json"):
        if not config.startswith("mmpretrain::") and not Path(config).is_file():
            raise FileNotFoundError(
                f"the teacher's config {config} does not exist (seen from {Path.cwd()})"
            )
        if config.startswith("mmpretrain::"):
            from mmengine.hub import get_config

            return Path(config).stem, get_config(config), None
        return Path(config).stem, Config.fromfile(config), None

    from mmpretrain.apis import ModelHub

    try:
        published = ModelHub.get(config)
    except ValueError:
        raise ValueError(
            f"the teacher {config!r} is neither a config file nor an mmpretrain model "
            f"(mmpretrain.list_models() names those). {_FORMS}"
        ) from None
    return config, published.config, published.weights


def _find_checkpoint(spec: dict, model: dict, published: str | None, name: str) -> str | None:
    if "checkpoint" in spec:
        checkpoint = spec["checkpoint"]
        if checkpoint is not None and (not isinstance(checkpoint, str) or not checkpoint):
            raise ValueError(
                f"the checkpoint of teacher {name} must be a path, a URL, open-mmlab://NAME or "
                f"None, got {checkpoint!r}"
            )
        return checkpoint
    init_cfg = model.get("init_cfg")
    if isinstance(init_cfg, dict) and type_name(init_cfg) == "Pretrained":
        return model.pop("init_cfg")["checkpoint"]
    if published is None:
        raise ValueError(
            f"teacher {name} has no checkpoint, and an untrained teacher teaches noise. Add "
            "checkpoint='PATH, URL or open-mmlab://NAME', or checkpoint=None when the model "
            "loads its own weights (timm and Hugging Face with pretrained=True)."
        )
    return published
