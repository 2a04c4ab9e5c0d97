"""Try the mutants: python tests/mutants [PATTERN ...] [--processes N].

Their tests run in processes forked from this one, which has imported what the package needs.
"""

import argparse
import fnmatch
import importlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from listed import MUTANTS

PROJECT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(PROJECT / "tests"))
from processes import Child  # noqa: E402

_PASSED, _FAILED = 10, 11  # exit statuses that no error before the tests gives


class Trial:
    """A copy of the project with the line of a mutant, in which its tests run."""

    def __init__(self, name):
        mutant = MUTANTS[name]
        self.name = name
        self._folder = tempfile.TemporaryDirectory()
        copy = Path(self._folder.name, "project")
        skipped = shutil.ignore_patterns(".git", "work_dirs", "results", "__pycache__", ".*_cache")
        shutil.copytree(PROJECT, copy, ignore=skipped)
        file = copy / "mmkd_logit" / mutant.file
        text = file.read_text()
        assert text.count(mutant.old) == 1, f"{name}: its line is not in {mutant.file} once"
        file.write_text(text.replace(mutant.old, mutant.new))
        environment = dict(PYTHONPATH=str(copy), PYTHONDONTWRITEBYTECODE="1")
        self.child = Child(_run_tests, copy, mutant.tests.split(), **environment)

    def survives(self):
        """Wait for the tests; say whether they pass."""
        status = self.child.wait()
        self._folder.cleanup()
        assert status in (_PASSED, _FAILED), f"{self.name}: {self.child.said}"
        return status == _PASSED


def _run_tests(copy, words):
    import pytest

    os.chdir(copy)
    sys.path.insert(0, str(copy))
    del sys.modules["processes"]  # that of the copy starts what is in the copy
    options = ["-q", "-x", "-p", "no:cacheprovider"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of what is imported before
    raise SystemExit(_PASSED + int(pytest.main([*options, *words])))


def main():
    """Try those that fit a pattern, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    names = [n for n in MUTANTS if any(fnmatch.fnmatch(n, p) for p in args.patterns)]
    for module in ("mmpretrain.models", "scipy.stats", "sklearn.datasets"):
        importlib.import_module(module)
    assert "mmkd_logit" not in sys.modules
    alive, waiting, running = [], names[::-1], {}
    while waiting or running:
        while waiting and len(running) < args.processes:
            trial = Trial(waiting.pop())
            running[trial.child.pid] = trial
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT).si_pid
        trial = running.pop(ended)
        lives = trial.survives()
        print(f"{'SURVIVES' if lives else 'killed  '} {trial.name}", flush=True)
        alive += [trial.name] * lives
    print(f"{len(names) - len(alive)} of {len(names)} killed")
    sys.exit(bool(alive))


if __name__ == "__main__":
    main()
