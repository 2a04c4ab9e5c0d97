#!/usr/bin/env python
"""Dump a checkpoint's logits: python tools/dump_logits.py CONFIG CHECKPOINT."""

from mmkd_logit.engine.logits import main

if __name__ == "__main__":
    main()
