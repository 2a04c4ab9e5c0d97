#!/usr/bin/env python
"""Draw accuracy against tau under label noise: python tools/analysis/label_noise.py results."""

from mmkd_logit.lab.report.command import main

if __name__ == "__main__":
    main("label_noise")
