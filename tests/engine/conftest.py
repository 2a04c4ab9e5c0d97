import os
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def trained_once(request, tmp_path_factory):
    """What the test file's ``Trained`` leaves in a folder, made once."""
    here = Path.cwd()
    folder = tmp_path_factory.mktemp("trained")
    trained = request.module.Trained(folder)
    yield folder, trained
    os.chdir(here)


@pytest.fixture
def trained(trained_once, monkeypatch):
    """That, with its folder made the current one."""
    folder, trained = trained_once
    monkeypatch.chdir(folder)
    return trained
