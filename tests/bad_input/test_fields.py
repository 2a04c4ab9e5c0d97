"""Wrong settings of a config are refused in one line, before anything is built."""

import copy
import re

import pytest
from bad_input import components, exempt, fields
from bad_input.components import MISSING
from mmengine.config import Config
from mmengine.runner import Runner
from runs import digits_distiller, run_config

from mmkd_logit.engine.check import check_config


def sound():
    cfg = run_config(digits_distiller(), "work", **copy.deepcopy(fields.MORE))
    cfg.param_scheduler = [*copy.deepcopy(fields.SCHEDULES), cfg.param_scheduler]
    return cfg


def put(cfg, place, value):
    """Change one setting, making the dicts on the way to it."""
    *parents, last = place.split(".")
    holder = cfg
    for name in parents:
        if isinstance(holder, dict) and holder.get(name) is None:
            holder[name] = {}
        holder = holder[int(name) if name.isdigit() else name]
    if value is MISSING:
        holder.pop(last)
    else:
        holder[last] = copy.deepcopy(value)


def test_the_sound_config_passes():
    check_config(sound())


@pytest.mark.parametrize(
    ("place", "kind", "value", "says"),
    fields.ROWS,
    ids=[f"{row[0]}-{row[1]}" for row in fields.ROWS],
)
def test_wrong_setting(place, kind, value, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    monkeypatch.setattr(Runner, "from_cfg", lambda cfg: pytest.fail("was built"))
    cfg = sound()
    put(cfg, place, value)
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        check_config(cfg)
    message = str(caught.value)
    assert "\n" not in message
    assert place.rpartition(".")[2] in message or repr(value) in message
    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]


# Read by the config itself, or by MMEngine's registries.
_OWN = {"data_root", "dataset_type", "type", "_scope_"}
_OURS = "mmkd_logit."


def settings_of(value, place=(), owner=None, inside=()):
    """Give each setting of a config: its place, the type it belongs to and its place in that."""
    if isinstance(value, dict):
        if "type" in value:
            owner, inside = str(value["type"]), ()
        for name, each in value.items():
            yield from settings_of(each, (*place, name), owner, (*inside, name))
    elif isinstance(value, (list, tuple)) and any(isinstance(each, dict) for each in value):
        for each in value:
            yield from settings_of(each, place, owner, inside)
    else:
        yield ".".join(place), owner, ".".join(inside)


def has_row(place, owner, inside):
    """Whether a row gives a wrong value to a setting.

    Settings of mmpretrain's, MMEngine's and torch's classes without a row are their classes', which
    say so when they are built; that no name is misspelt is checked by their signatures, above.
    """
    if inside.rpartition(".")[2] in _OWN:
        return True
    known = {re.sub(r"\.\d+", "", each) for each, *_ in fields.ROWS}
    if place in known:
        return True
    if owner is None or not owner.startswith(_OURS):
        return owner is not None
    name = owner.removeprefix(_OURS)
    if inside.startswith("stages.teacher."):  # what a distiller takes
        name, inside = "LogitDistiller", inside.removeprefix("stages.")
    rows = {(row[0].partition("/")[0], row[1]) for row in components.ROWS}
    return (name, inside) in rows or (name, inside) in exempt.ARGUMENTS


@pytest.mark.parametrize(
    "config",
    [
        "kd/resnet152_resnet50_kl-t20_in1k.py",
        "kd/wrn28-4_mobilenetv2_kl-t20.py",
        "methods/wrn16-2_wrn10-1-thin_ft_digits.py",
        "sequential/wrn16-2-then-wrn10-1_wrn10-1-thin_kl-t3-then-mse_digits.py",
        "noisy_label/wrn28-4_wrn16-2_kl-t1_human.py",
        "data_amount/wrn10-1-thin_entropy_digits.py",
    ],
)
def test_every_setting_of_our_configs_has_a_row(config, project):
    content = Config.fromfile(f"configs/{config}").to_dict()
    assert not {place for place, *more in settings_of(content) if not has_row(place, *more)}
