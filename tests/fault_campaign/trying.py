"""Tries of one kind of harm, as a row of the table."""

import time

import pytest

from fault_campaign.tables import Row


def trying(fault, run, tries):
    """Make a function of one try one of all, that gives a row of the table.

    The function gets the laboratory, a fresh place, random numbers and the number of the try, and
    gives what was done and what was wrong.
    """

    def decorate(function):
        def run_all(lab, random, say, tries=tries):
            row, begin = Row(fault, run), time.monotonic()
            for number in range(tries):
                place = lab.fresh(run)
                try:
                    how, problems = function(lab, place, random, number)
                except pytest.skip.Exception as why:
                    row.skipped = str(why)
                    break
                row.add(how, problems)
                say(
                    f"{fault}, {run}, {number + 1}/{tries}: {how}: "
                    f"{'WRONG' if problems else 'survived'}"
                )
                if not problems:
                    lab.forget(place)
            row.seconds = time.monotonic() - begin
            return row

        run_all.__doc__ = function.__doc__
        return run_all

    return decorate
