import json
import logging
import os
import signal
from pathlib import Path

import pytest
from bad_input.prior import Prior
from mmengine.logging import MMLogger
from report_records import record_of
from traces import no_trace


@pytest.fixture(scope="package")
def finished_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    before = Path.cwd()
    os.chdir(folder)
    try:
        with no_trace():
            made = Prior(folder)
        record = record_of({"a": ("row", "column", [1.0], None)})
        Path("results", "table1.json").write_text(json.dumps(record))
        made.folder = folder
        yield made
    finally:
        os.chdir(before)


def close_logs():
    """Let nothing be written on into the log of a run that is over."""
    for logger in MMLogger._instance_dict.values():
        for handler in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:
            handler.close()
            logger.removeHandler(handler)


@pytest.fixture
def prior(finished_run, monkeypatch):
    """The finished run, in the current folder; it must be the same afterwards."""
    monkeypatch.chdir(finished_run.folder)
    close_logs()
    before = finished_run.files()
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)}
    yield finished_run
    for number, handler in handlers.items():  # which tools/reproduce.py sets
        signal.signal(number, handler)
    after = finished_run.files()
    assert {name: after.get(name) for name in before} == before
