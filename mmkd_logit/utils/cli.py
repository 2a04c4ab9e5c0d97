"""Command lines whose errors are one line."""

import argparse
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from .arguments import did_you_mean

# Files of tools/ with the module whose ``main`` they run, and the word of ``mmkd-logit WORD``.
TOOLS = {
    "train.py": ("mmkd_logit.engine.train", "train"),
    "test.py": ("mmkd_logit.engine.test", "test"),
    "precompute.py": ("mmkd_logit.engine.precompute", "precompute"),
    "dump_logits.py": ("mmkd_logit.engine.logits", "logits"),
    "train_group.py": ("mmkd_logit.engine.group", "group"),
    "reproduce.py": ("mmkd_logit.lab.reproduce", "reproduce"),
    "report.py": ("mmkd_logit.lab.report.command", "report"),
    "benchmark.py": ("mmkd_logit.lab.benchmark.command", "benchmark"),
}


def one_line(text: str) -> str:
    """Return a text in one line that moves and colors nothing on a terminal, as names may."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


def program(tool: str) -> list[str]:
    """Return the words that start a tool: of a checkout its file, else the installed script."""
    if (Path(__file__).parents[2] / "pyproject.toml").is_file():
        return ["python", f"tools/{tool}"]
    return ["mmkd-logit", TOOLS[tool][1]]


class OneLineParser(argparse.ArgumentParser):
    """A parser that says in one line what is wrong; argparse prints the whole usage before it."""

    def __init__(self, *args: Any, place: str | None = None, **kwargs: Any) -> None:
        # Flags are also looked for in the words of a command, such as --resume and --no-train.
        kwargs["allow_abbrev"] = False
        super().__init__(*args, **kwargs)
        self.place = place

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and refuse text without a character: it names neither a file nor a folder."""
        found, rest = super().parse_known_args(args, namespace)
        for action in self._actions:
            if getattr(found, action.dest, None) == "":
                self.error(f"{'/'.join(action.option_strings) or action.dest} is empty")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """End the program with status 2."""
        unknown = re.match(r"unrecognized arguments: .*?(--?[\w-]+)", message)
        flags = [flag for action in self._actions for flag in action.option_strings]
        hint = did_you_mean(unknown[1], flags) if unknown else ""
        where = f"{self.place}: " if self.place else ""
        print(f"error: {where}{one_line(message)}{hint} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def say(line: str) -> None:
    """Tell the progress on standard error; standard output is for tables."""
    print(line, file=sys.stderr, flush=True)
