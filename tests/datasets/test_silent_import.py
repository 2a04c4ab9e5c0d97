"""Importing mmpretrain's data sets keeps standard output for tables."""

import importlib.machinery
import runpy
import sys

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


def test_what_is_for_debugging_is_not_shown(talk, capsys):
    talk("Could not import OneDL")
    assert capsys.readouterr() == ("", "")


def test_anything_else_goes_to_standard_error(talk, capsys):
    talk("first", "Could not import OneDL", "last")
    assert capsys.readouterr() == ("", "first\nlast\n")


def test_also_where_the_import_fails(talk, capsys):
    with pytest.raises(ImportError, match="broken"):
        talk("why", error=ImportError("broken"))
    assert capsys.readouterr() == ("", "why\n")
