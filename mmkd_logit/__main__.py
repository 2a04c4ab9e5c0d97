"""The tools of an installed package: ``python -m mmkd_logit train CONFIG``, or ``mmkd-logit``."""

import importlib
import sys

from mmkd_logit.utils.cli import TOOLS


def main() -> None:
    """Run the tool that the first word names."""
    modules = {word: module for module, word in TOOLS.values()}
    word, *rest = sys.argv[1:] or [""]
    if word not in modules:
        print(f"usage: mmkd-logit {{{','.join(modules)}}} ...", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"mmkd-logit {word}", *rest]
    importlib.import_module(modules[word]).main()


if __name__ == "__main__":
    main()
