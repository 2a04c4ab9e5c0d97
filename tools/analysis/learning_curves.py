#!/usr/bin/env python
"""Draw learning curves.

python tools/analysis/learning_curves.py work_dirs/a/seed0 work_dirs/b/seed0
"""

from mmkd_logit.lab.report.command import main

if __name__ == "__main__":
    main("learning_curves")
