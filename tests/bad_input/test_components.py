"""Public components refuse wrong arguments in one line."""

import copy
import inspect

import pytest
from bad_input import components, exempt, fields
from bad_input.components import MISSING, RIGHT
from examples import losses_between_logits, needed_by
from mmengine.registry import Registry, init_default_scope

import mmkd_logit.registry
from mmkd_logit.utils.arguments import arguments_of


def public_components():
    """Return all that the registries of the package hold, by name."""
    found = {}
    for registry in vars(mmkd_logit.registry).values():
        if isinstance(registry, Registry) and registry.scope == "mmkd_logit":
            registry.import_from_location()
            for name, each in registry.module_dict.items():
                if each.__module__.startswith("mmkd_logit."):
                    found[name] = each
    return found


def make(name, arguments):
    given = {}
    for key, value in arguments.items():
        if value is not MISSING:
            given[key] = value() if inspect.isfunction(value) else copy.deepcopy(value)
    name = name.partition("/")[0]
    made = public_components()[name](**given)
    if hasattr(made, "full_init"):
        made.full_init()
    if name == "LogitDistiller":
        made.init_weights()
    return made


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope("mmpretrain")


LOSSES = losses_between_logits()
PLACES = [(name, argument) for name, cls in LOSSES.items() for argument in arguments_of(cls)[0]]


@pytest.mark.parametrize("name", RIGHT)
def test_right_arguments_pass(name):
    """So what is refused below is the one argument that is wrong."""
    make(name, RIGHT[name])


@pytest.mark.parametrize(("name", "argument"), PLACES)
@pytest.mark.parametrize("value", [["x"], "", None])
def test_wrong_argument_of_any_loss(name, argument, value):
    right = needed_by(LOSSES[name])
    make(name, right)
    with pytest.raises(ValueError, match=argument) as caught:
        make(name, {**right, argument: value})
    assert "\n" not in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "argument", "kind", "value", "says"),
    components.ROWS,
    ids=[f"{row[0]}-{row[1]}-{row[2]}" for row in components.ROWS],
)
def test_wrong_argument(name, argument, kind, value, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        make(name, {**RIGHT[name], argument.partition(".")[0]: value})
    message = str(caught.value)
    assert "\n" not in message
    assert says in message
    assert not list(tmp_path.iterdir())


def test_every_argument_has_a_row():
    """But for those of losses between logits, which are all tried above."""
    rows = {(row[0], row[1]) for row in components.ROWS}
    places = {place for place, *_ in fields.ROWS}
    missing = []
    for name, component in public_components().items():
        for argument in arguments_of(component)[0]:
            place = f"{exempt.IN_CONFIG.get(name)}.{argument}"
            known = (name, argument) in rows or (name, argument) in exempt.ARGUMENTS
            if not known and place not in places and name not in LOSSES:
                missing.append(f"{name}.{argument}")
    assert not missing, f"add rows to {components.__file__} for {missing}"


def test_exempt_arguments_exist_and_have_no_row():
    rows = {(row[0], row[1]) for row in components.ROWS}
    known = {
        (name, argument)
        for name, component in public_components().items()
        for argument in arguments_of(component)[0]
    }
    # Newer and older torch take others.
    ours = {pair for pair, why in exempt.ARGUMENTS.items() if why is not exempt.THEIRS}
    assert ours <= known
    assert not rows & set(exempt.ARGUMENTS)


def test_every_component_has_right_arguments_or_is_made_by_the_runner():
    old = {"RunCheckHook", "SameBuffersHook"}  # names of version 0.1.0
    known = {*RIGHT, *LOSSES, *exempt.IN_CONFIG, "StudentGroupDDP"}
    others = set(public_components()) - known
    assert others == old, f"add to RIGHT in {components.__file__}: {others - old}"
