#!/usr/bin/env python
"""Draw top-logit differences and reliability: python tools/analysis/calibration.py results."""

from mmkd_logit.lab.report.command import main

if __name__ == "__main__":
    main("calibration")
