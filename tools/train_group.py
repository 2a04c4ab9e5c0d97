#!/usr/bin/env python
"""Train several runs as one, with one pass of their teacher: train_group.py RUNS."""

from mmkd_logit.engine.group import main

if __name__ == "__main__":
    main()
