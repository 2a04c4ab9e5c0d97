#!/usr/bin/env python
"""Draw accuracy over alpha and tau: python tools/analysis/grid.py results."""

from mmkd_logit.lab.report.command import main

if __name__ == "__main__":
    main("grid")
