#!/usr/bin/env python
"""Write one page with every table and figure of a folder: python tools/report.py results."""

from mmkd_logit.lab.report.page import main

if __name__ == "__main__":
    main()
