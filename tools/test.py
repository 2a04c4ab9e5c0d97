#!/usr/bin/env python
"""Test a checkpoint: python tools/test.py configs/wrn/wrn16-2.py CHECKPOINT."""

from mmkd_logit.engine.test import main

if __name__ == "__main__":
    main()
