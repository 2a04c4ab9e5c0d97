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
    for name in ("matplotlib.pyplot", "mmpretrain.models", "scipy.stats", "sklearn.datasets"):
        importlib.import_module(name)
    import yapf.yapflib.yapf_api

    yapf.yapflib.yapf_api.FormatCode = lambda text, **_: (text, True)
    gc.collect()
    gc.freeze()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tries", type=int, default=10, help="kills a kind of run")
    parser.add_argument("--kinds", nargs="+", help="of runs to kill; all by default")
    parser.add_argument("--faults", nargs="+", help="of 'kills' and the others; all by default")
    parser.add_argument("--json", help="file for the table")
    parser.add_argument("--markdown", help="file for the table")
    parser.add_argument("--keep", help="empty folder for all that is made; kept")
    parser.add_argument("--sabotage", help="a way to break the product, for a look at the table")
    parser.add_argument(
        "--controls", action="store_true", help="also break the product, which must be found"
    )
    args = parser.parse_args(argv)

    _warm_up()
    from fault_campaign.controls import find_all
    from fault_campaign.faults import FAULTS
    from fault_campaign.kills import kill_often
    from fault_campaign.kinds import KINDS
    from fault_campaign.lab import Lab
    from fault_campaign.sabotage import SABOTAGES
    from fault_campaign.tables import as_json, as_markdown, is_well

    kinds = args.kinds or list(KINDS)
    faults = args.faults or ["kills", *FAULTS]
    for given, known in ((kinds, KINDS), (faults, ("kills", *FAULTS))):
        if not set(given) <= set(known):
            parser.error(f"{given} given, of {sorted(known)}")
    if args.sabotage is not None and args.sabotage not in SABOTAGES:
        parser.error(f"--sabotage is one of {sorted(SABOTAGES)}")
    with tempfile.TemporaryDirectory() as own:
        lab = Lab(Path(args.keep or own, "lab"), SABOTAGES.get(args.sabotage))
        rows, begin = [], time.monotonic()

        def say(text):
            print(f"[{time.monotonic() - begin:5.0f} s] {text}", file=sys.stderr, flush=True)

        for name in kinds if "kills" in faults else ():
            # Its own numbers, whichever other kinds are tried.
            chance = random.Random(f"{args.seed} {name}")
            rows.append(kill_often(lab, name, args.tries, chance, say))
        for name in faults:
            if name != "kills":
                rows += FAULTS[name](lab, random.Random(f"{args.seed} {name}"), say)
        unfound = find_all(lab, random.Random(args.seed), say) if args.controls else []
    table = as_markdown(rows)
    print(table)
    if args.markdown:
        Path(args.markdown).write_text(table)
    if args.json:
        Path(args.json).write_text(as_json(rows, seed=args.seed, tries=args.tries, unfound=unfound))
    if unfound:
        print(f"not found although the product was broken: {', '.join(unfound)}")
    raise SystemExit(bool(unfound) or not is_well(rows))


if __name__ == "__main__":
    main()
