"""Settings on the command line: ``KEY=VALUE``."""

import argparse
import ast
from collections.abc import Sequence
from typing import Any

from mmengine.config import DictAction


class _Overrides(DictAction):
    """MMEngine's parser of KEY=VALUE; wrong syntax is a usage error, spaces in paths stay."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for text in values or ():
            key, equals, value = text.partition("=")
            if not key or not equals:
                raise argparse.ArgumentError(self, f"{text!r} is not KEY=VALUE")
            try:
                options[key] = self._parse(value)
            except AssertionError as error:
                raise argparse.ArgumentError(self, f"{text!r}: {error}") from None
        setattr(namespace, self.dest, options)

    def _parse(self, value: str) -> Any:
        plain = value.strip("'\"")
        if plain.startswith(("{", "[{")):  # a teacher, or a list of them
            try:
                return ast.literal_eval(plain)
            except (ValueError, SyntaxError):
                raise AssertionError("it is not a Python literal") from None
        if "," in plain or plain[:1] in ("(", "["):
            return self._parse_iterable(value)
        return self._parse_int_float_bool(plain)


def add_override_argument(parser: argparse.ArgumentParser, flag: str, text: str) -> None:
    """Add a flag that takes ``KEY=VALUE`` several times and gives a dict of parsed values.

    Args:
        parser: Gets the flag.
        flag: Its name.
        text: Its help.
    """
    parser.add_argument(
        flag, nargs="+", action=_Overrides, default={}, metavar="KEY=VALUE", help=text
    )


def parse_overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Parse settings of a config file that are written as on the command line.

    Args:
        texts: ``KEY=VALUE`` each.

    Raises:
        ValueError: If one is not.

    Example:
        >>> parse_overrides(['model.alpha=0.9', 'param_scheduler.milestones=[1,2]'])
        {'model.alpha': 0.9, 'param_scheduler.milestones': [1, 2]}
    """
    result = argparse.Namespace()
    try:
        _Overrides([], "overrides", nargs="+")(argparse.ArgumentParser(), result, texts)
    except argparse.ArgumentError as error:
        raise ValueError(error.message) from None
    return result.overrides
