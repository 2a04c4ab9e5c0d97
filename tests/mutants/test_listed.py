"""The list of mutants is of the code as it is."""

import pytest
from commands import PROJECT

from mutants.listed import MUTANTS


@pytest.mark.parametrize("name", MUTANTS)
def test_the_line_is_there_once(name):
    mutant = MUTANTS[name]
    text = (PROJECT / "mmkd_logit" / mutant.file).read_text()
    assert text.count(mutant.old) == 1, f"{mutant.file} has it {text.count(mutant.old)} times"
    assert all((PROJECT / test.partition("::")[0]).is_file() for test in mutant.tests.split())
