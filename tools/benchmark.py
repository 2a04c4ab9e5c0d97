#!/usr/bin/env python
"""Measure cost and accuracy on this machine: python tools/benchmark.py CONFIG, or --losses."""

from mmkd_logit.lab.benchmark.command import main

if __name__ == "__main__":
    main()
