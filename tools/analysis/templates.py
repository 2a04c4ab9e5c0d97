#!/usr/bin/env python
"""Draw the pre-logits of three classes on the plane of their templates.

python tools/analysis/templates.py results
"""

from mmkd_logit.lab.report.command import main

if __name__ == "__main__":
    main("templates")
