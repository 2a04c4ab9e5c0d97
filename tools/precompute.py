#!/usr/bin/env python
"""Store the teacher's logits that a run looks up: python tools/precompute.py CONFIG --seed 0."""

from mmkd_logit.engine.precompute import main

if __name__ == "__main__":
    main()
