#!/usr/bin/env python
"""Train a config: python tools/train.py configs/kd/wrn28-4_wrn16-2_mse.py [--train-teacher]."""

from mmkd_logit.engine.train import main

if __name__ == "__main__":
    main()
