"""Wrong words on command lines end a tool in one line, and nothing is written."""

import argparse
from importlib import import_module
from pathlib import Path

import pytest
from bad_input import exempt, tools
from mmengine.runner import EpochBasedTrainLoop

from mmkd_logit.lab import publish
from mmkd_logit.utils import cli

TOOLS = {Path(tool).stem: import_module(name) for tool, (name, _) in cli.TOOLS.items()}
TOOLS["publish_results"] = publish


@pytest.mark.parametrize(
    ("tool", "option", "kind", "words", "says"),
    tools.ROWS,
    ids=[f"{row[0]}-{row[1]}-{row[2]}" for row in tools.ROWS],
)
def test_wrong_words(tool, option, kind, words, says, prior, monkeypatch, capsys):
    monkeypatch.setattr(EpochBasedTrainLoop, "run", lambda loop: pytest.fail("it trains"))
    before = prior.files()
    with pytest.raises(SystemExit) as stopped:
        TOOLS[tool].main([word.format(**prior.words) for word in words])
    assert stopped.value.code in (1, 2)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert says in lines[0]
    assert prior.files() == before


def options_of(parser):
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield action.dest
            for inner in action.choices.values():
                yield from options_of(inner)
        elif not isinstance(action, argparse._HelpAction):
            yield action.option_strings[0] if action.option_strings else action.dest


def test_every_option_has_a_row():
    rows = {row[:2] for row in tools.ROWS}
    known = {(tool, option) for tool in TOOLS for option in options_of(TOOLS[tool].build_parser())}
    missing = known - rows - set(exempt.OPTIONS)
    assert not missing
    assert set(exempt.OPTIONS) <= known
    assert not set(exempt.OPTIONS) & rows
