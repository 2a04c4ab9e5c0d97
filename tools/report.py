#!/usr/bin/env python
"""Write one page with every table and figure of a folder: python tools/report.py results.

Or one figure as PNG and SVG: python tools/report.py results --figure grid
"""

from mmkd_logit.lab.report.command import main

if __name__ == "__main__":
    main()
