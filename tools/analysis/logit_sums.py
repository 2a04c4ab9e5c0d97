#!/usr/bin/env python
"""Draw the sums of logits of teacher and students.

python tools/analysis/logit_sums.py results
"""

from mmkd_logit.lab.report.command import main

if __name__ == "__main__":
    main("logit_sums")
