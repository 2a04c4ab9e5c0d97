#!/usr/bin/env python
"""Teachers' caches: python tools/cache.py fill CONFIG | inspect [ROOT] | verify [ROOT]."""

from mmkd_logit.engine.precompute import main

if __name__ == "__main__":
    main()
