#!/usr/bin/env python
"""Draw how far students' logits are from the teacher's.

python tools/analysis/distances.py results
"""

from mmkd_logit.lab.report.command import main

if __name__ == "__main__":
    main("distances")
