"""The tools of an installed package: ``python -m mmkd_logit train CONFIG``, or ``mmkd-logit``."""

import importlib
import sys

# Each word with the module whose ``main`` it runs; tools/WORD.py does the same.
TOOLS = dict(
    train="mmkd_logit.engine.train",
    test="mmkd_logit.engine.test",
    precompute="mmkd_logit.engine.precompute",
    logits="mmkd_logit.engine.logits",
    group="mmkd_logit.engine.group",
    reproduce="mmkd_logit.lab.reproduce",
    report="mmkd_logit.lab.report.command",
    benchmark="mmkd_logit.lab.benchmark.command",
)


def main() -> None:
    """Run the tool that the first word names."""
    word, *rest = sys.argv[1:] or [""]
    if word not in TOOLS:
        print(f"usage: mmkd-logit {{{','.join(TOOLS)}}} ...", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"mmkd-logit {word}", *rest]
    importlib.import_module(TOOLS[word]).main()


if __name__ == "__main__":
    main()
