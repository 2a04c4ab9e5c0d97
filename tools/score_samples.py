#!/usr/bin/env python
"""Score the training samples: python tools/score_samples.py CONFIG CHECKPOINT OUT.npz."""

from mmkd_logit.engine.score import main

if __name__ == "__main__":
    main()
