#!/usr/bin/env python
"""Put measured numbers into READMEs and metafiles: python tools/publish_results.py [--check]."""

from mmkd_logit.lab.publish import main

if __name__ == "__main__":
    main()
