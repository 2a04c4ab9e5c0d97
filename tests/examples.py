"""Arguments without which a component cannot be built, for tests of all components."""

from mmkd_logit.losses.base import LogitLoss
from mmkd_logit.registry import MODELS
from mmkd_logit.utils.arguments import arguments_of

# An example of each argument without default. Any component that has it is built with it.
ARGUMENTS = dict(tau=4, loss=dict(type="mmkd_logit.LogitMSELoss"))


def needed_by(component):
    """The arguments of a component that have no default."""
    parameters = arguments_of(component)[0].values()
    names = [each.name for each in parameters if each.default is each.empty]
    unknown = set(names) - set(ARGUMENTS)
    what = f"{unknown} of {component.__name__}"
    assert not unknown, f"add an example of {what} to ARGUMENTS in {__file__}"
    return {name: ARGUMENTS[name] for name in names}


def losses_between_logits():
    """The registered losses between logits, by name."""
    MODELS.import_from_location()
    return {
        name: each
        for name, each in MODELS.module_dict.items()
        if isinstance(each, type)
        and issubclass(each, LogitLoss)
        and each.__module__.startswith("mmkd_logit.")  # not that of a test
    }
