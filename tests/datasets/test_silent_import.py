"""Importing mmpretrain's data sets keeps standard output for tables."""

import importlib.machinery
import runpy
import sys
from contextlib import nullcontext

import mmpretrain.datasets
import pytest

import mmkd_logit.utils.silent_import

NAME = "mmpretrain.datasets"


class Talking:
    """Stands for mmpretrain's data sets; prints while it is imported."""

    def __init__(self, *lines, error=None):
        self.lines, self.error = lines, error

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == NAME else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        for line in self.lines:
            print(line)
        if self.error:
            raise self.error


@pytest.fixture
def talk(monkeypatch):
    monkeypatch.setattr(mmpretrain, "datasets", mmpretrain.datasets)
    monkeypatch.delitem(sys.modules, NAME)

    def run(*lines, error=None):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "meta_path", [Talking(*lines, error=error), *sys.meta_path])
            try:
                runpy.run_path(mmkd_logit.utils.silent_import.__file__)
            finally:
                sys.modules.pop(NAME, None)

    return run


@pytest.mark.parametrize(
    ("lines", "error", "shown"),
    [
        (["Could not import OneDL"], None, ""),
        (["first", "Could not import OneDL", "last"], None, "first\nlast\n"),
        (["why"], ImportError("broken"), "why\n"),
    ],
)
def test_what_is_not_for_debugging_goes_to_standard_error(talk, capsys, lines, error, shown):
    with pytest.raises(ImportError, match="broken") if error else nullcontext():
        talk(*lines, error=error)
    assert capsys.readouterr() == ("", shown)
