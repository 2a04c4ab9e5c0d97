"""Do harm to runs, and see whether they survive.

    python tests/fault_campaign --seed 0 [--tries 10] [--kinds plain kd] [--faults kills disk]

Prints a table, and ends with a status that is not 0 if anything was wrong, hung or silently lost.

Most runs are forked from this process, which has imported torch and mmpretrain (seconds, for a
run of one): a fork calls the ``main`` that ``tools/train.py`` calls, with the same words, in a
process that has trained nothing before, and is killed by SIGKILL from outside. MMEngine's
formatting of configs by yapf is left out, as in the tests. Torchrun is started as users do.
"""

import argparse
import gc
import importlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # threads do not survive a fork
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def _warm_up():
    """Import what a run does, and let no collection look at it again."""
    for name in ("mmpretrain.models", "scipy.stats"):
        importlib.import_module(name)
    import yapf.yapflib.yapf_api

    yapf.yapflib.yapf_api.FormatCode = lambda text, **_: (text, True)
    gc.collect()
    gc.freeze()


def main(argv=None):
    _warm_up()
    from fault_campaign.controls import find_all
    from fault_campaign.faults import FAULTS
    from fault_campaign.kills import killing
    from fault_campaign.kinds import KINDS
    from fault_campaign.lab import Lab
    from fault_campaign.trying import as_table

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tries", type=int, default=10, help="kills a kind of run")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--faults", nargs="+", choices=["kills", *FAULTS])
    parser.add_argument("--keep", help="empty folder for all that is made; kept")
    parser.add_argument(
        "--controls", action="store_true", help="also break the product, which must be found"
    )
    args = parser.parse_args(argv)
    faults = args.faults or ["kills", *FAULTS]
    tries = []
    if "kills" in faults:
        tries = [(f"{args.seed} {name}", killing(name, args.tries)) for name in args.kinds]
    for name in faults:
        tries += [(f"{args.seed} {name}", each) for each in FAULTS.get(name, ())]
    begin = time.monotonic()

    def say(text):
        print(f"[{time.monotonic() - begin:5.0f} s] {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as own:
        lab = Lab(Path(args.keep or own, "lab"))
        # Each has its own random numbers, whichever others are tried.
        rows = [run_all(lab, random.Random(seed), say) for seed, run_all in tries]
        unfound = find_all(lab, random.Random(args.seed), say) if args.controls else []
    print(as_table(rows))
    if unfound:
        print(f"not found although the product was broken: {', '.join(unfound)}")
    raise SystemExit(bool(unfound) or not rows or not all(row.is_good for row in rows))


if __name__ == "__main__":
    main()
