"""Try the mutants: python tests/mutants [PATTERN ...] [--processes N]."""

import argparse
import fnmatch
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from listed import MUTANTS

PROJECT = Path(__file__).resolve().parents[2]


def survives(name: str) -> bool:
    """Whether the tests of a mutant pass in a copy of the project that has its line."""
    mutant = MUTANTS[name]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "project")
        skipped = shutil.ignore_patterns(".git", "work_dirs", "results", "__pycache__", ".*_cache")
        shutil.copytree(PROJECT, copy, ignore=skipped)
        file = copy / "mmkd_logit" / mutant.file
        text = file.read_text()
        assert text.count(mutant.old) == 1, f"{name}: its line is not in {mutant.file} once"
        file.write_text(text.replace(mutant.old, mutant.new))
        words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        done = subprocess.run(
            [*words, *mutant.tests.split()],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
    assert done.returncode in (0, 1), f"{name}: pytest ended with {done.returncode}\n{done.stdout}"
    return done.returncode == 0


def main() -> None:
    """Try those that fit a pattern, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("patterns", nargs="*", default=["*"])
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    names = [n for n in MUTANTS if any(fnmatch.fnmatch(n, p) for p in args.patterns)]
    alive = []
    with ThreadPoolExecutor(args.processes) as pool:
        for name, lives in zip(names, pool.map(survives, names), strict=True):
            print(f"{'SURVIVES' if lives else 'killed  '} {name}", flush=True)
            alive += [name] * lives
    print(f"{len(names) - len(alive)} of {len(names)} killed")
    sys.exit(bool(alive))


if __name__ == "__main__":
    main()
