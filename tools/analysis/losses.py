#!/usr/bin/env python
"""Draw the losses against tau: python tools/analysis/losses.py."""

from mmkd_logit.lab.report.command import main

if __name__ == "__main__":
    main("losses")
