#!/usr/bin/env python
"""Train what an experiment still needs and print its table: python tools/reproduce.py digits."""

from mmkd_logit.lab.reproduce import main

if __name__ == "__main__":
    main()
