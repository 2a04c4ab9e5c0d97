#!/usr/bin/env python
"""Draw the last layer's sum over classes in training.

python tools/analysis/class_sums.py results
"""

from mmkd_logit.lab.report.command import main

if __name__ == "__main__":
    main("class_sums")
