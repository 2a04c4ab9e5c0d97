"""Processes that are forked from one that has imported everything, and killed.

To import torch and mmpretrain takes seconds, a run of these takes one. A child calls the ``main``
of the command line as ``tools/train.py`` does, in a process of its own that has trained nothing
before; the parent never trains and has no threads.
"""

import multiprocessing.util
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import pausing
from processes import free_port

from mmkd_logit.engine import group, train

PATIENCE = 120  # seconds that a run of one or two may take before it counts as hung
_LOOK = 0.005
_TICKS = os.sysconf("SC_CLK_TCK")
_TOOLS = {"train.py": train, "train_group.py": group}


class Child:
    """A command in a process of its own.

    Args:
        kind: The command.
        place: Where it runs.
        resume: Whether it is told to go on.
        prepare: Called in the process first, with the rank.
        rank: Of the process.
        port: By which several find each other.
    """

    def __init__(self, kind, place, resume=False, prepare=None, rank=0, port=None):
        number = len(list(Path(place).glob("said-*")))
        self.log = Path(place, f"said-{number}")
        self.log.touch()
        self.status = None
        self.since = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _be(kind, place, self.log, resume, prepare, rank, port)

    def ended(self):
        """Its exit status, negative for a signal, or None."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self, seconds=PATIENCE):
        """Wait for its end; it is killed when that does not come, and None returned."""
        while self.ended() is None:
            if time.monotonic() - self.since > seconds:
                self.kill()
                return None
            time.sleep(_LOOK)
        return self.status

    def wait_for_cpu(self, seconds):
        """Wait until it has used as many seconds of CPU; False if it ends before."""
        return self.wait_for(lambda: self.cpu() >= seconds)

    def wait_for(self, happened, seconds=PATIENCE):
        """Wait until something is so; False if the process ends or time is over before."""
        while not happened():
            if self.ended() is not None or time.monotonic() - self.since > seconds:
                return happened()
            time.sleep(_LOOK)
        return True

    def kill(self, number=signal.SIGKILL):
        """Send a signal, and wait for the end that SIGKILL is; say whether it was that."""
        if self.ended() is None:
            os.kill(self.pid, number)
        if number == signal.SIGKILL and self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status == -number

    def workers(self):
        """Process numbers of what it has started."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            return [int(pid) for pid in path.read_text().split()]
        except OSError:
            return []

    def cpu(self):
        """Seconds of CPU that it has used."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def said(self):
        return self.log.read_text(errors="replace")


def _be(kind, place, log, resume, prepare, rank, port):
    status = 1
    try:
        os.chdir(place)
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        words = [*kind.words, *["--resume"] * (resume and kind.told)]
        if kind.processes > 1:
            _join(rank, kind.processes, port)
            words += ["--launcher", "pytorch"]
        os.environ["MMKD_LOGIT_TEACHER_CACHE"] = "cache"
        sys.argv = [f"tools/{kind.tool}", *words]
        if prepare is not None:
            prepare(rank)
        _TOOLS[kind.tool].main(words)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:  # as when a program ends: waits for what it started
            multiprocessing.util._exit_function()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _join(rank, world, port):
    own = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, LOCAL_WORLD_SIZE=world)
    own.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    os.environ.update({key: str(value) for key, value in own.items()})


def start(kind, place, resume=False, prepare=None):
    """Start all processes of a command."""
    port = free_port() if kind.processes > 1 else None
    return [Child(kind, place, resume, prepare, rank, port) for rank in range(kind.processes)]


def finish(children, seconds=PATIENCE):
    """Wait for processes of which none was killed; say what is wrong with their ends."""
    problems = []
    for child in children:
        status = child.wait(seconds)
        if status is None:
            problems.append(f"hung: no end in {seconds} s, see {child.log}")
        elif status:
            last = (child.said().strip().splitlines() or [""])[-1]
            problems.append(f"exit status {status}: {last[:300]}")
    return problems


class Trace(pausing.Pause):
    """Notes all writes of the run, at which others may then be stopped."""

    def __init__(self):
        super().__init__(None, "*", 0, "x")
        self.seen = []

    def comes(self, place, path):
        self.seen.append((place, Path(path).name))
        return False


def tracing(path):
    """Have the first process note its writes in a file; a ``prepare`` of ``start``."""

    def prepare(rank):
        if rank:
            return
        trace, main = Trace(), {}
        pausing.install(trace)
        pausing._stop_in_rows(trace)
        pausing._stop_in_cache(trace)
        for name, module in _TOOLS.items():
            main[name] = module.main

            def noted(words, main=module.main):
                main(words)
                Path(path).write_text("".join(f"{p}\t{n}\n" for p, n in trace.seen))

            module.main = noted

    return prepare


class Stop(pausing.Pause):
    """Stops the process until it gets SIGCONT."""

    def stop(self, path):
        self.note(path)
        os.kill(os.getpid(), signal.SIGSTOP)


def pausing_at(place, name, count, sign, kind=pausing.Pause):
    """Have the first process stop for ever at a write; a ``prepare`` of ``start``."""

    def prepare(rank):
        if not rank:
            pausing.install(kind(place, name, count, sign))

    return prepare
