"""Processes: forked from this one, which has imported everything, or command lines."""

import os
import socket
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

HERE = Path(__file__).resolve().parent


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def fork(do):
    """Return the process number of a child that does something and ends with status 7."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of torch's stay behind
        pid = os.fork()
    if pid == 0:
        try:
            do()
            os._exit(7)
        finally:
            os._exit(1)
    return pid


class Child:
    """A function that is called in a process forked from this one.

    Args:
        call: The function.
        *args: Its arguments.
        **environment: Variables of the process.

    Attributes:
        pid: The process number.
        said: What it printed, once it has ended.
    """

    def __init__(self, call, *args, **environment):
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self.pid = fork(lambda: self._run(call, args, environment))

    def _run(self, call, args, environment):
        os.environ.update({name: str(value) for name, value in environment.items()})
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(self._file.fileno(), number)
            setattr(sys, name, os.fdopen(number, "w", buffering=1, closefd=False))
        warnings.simplefilter("default")
        status = 1
        try:
            call(*args)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def wait(self):
        """Wait for its end and return the exit status, which is negative for a signal."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        with self._file:
            self._file.seek(0)
            self.said = self._file.read().decode()
        return status


def start_ranks(world, call, *args, **environment):
    """Call a function in the processes of a run, in which torchrun's variables are set."""
    meeting = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port(), **environment)
    meeting.update(WORLD_SIZE=world, LOCAL_WORLD_SIZE=world)
    return [Child(call, *args, **meeting, RANK=r, LOCAL_RANK=r) for r in range(world)]


def run_ranks(world, call, *args):
    """Call a function in the processes of a run, wait for them and return what each has printed."""
    ranks = start_ranks(world, call, *args)
    statuses, said = [rank.wait() for rank in ranks], [rank.said for rank in ranks]
    assert statuses == [0] * world, f"{statuses}\n" + "\n".join(text[-3000:] for text in said)
    return said


def family(pid):
    """A process and all that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    started = children.read_text().split() if children.is_file() else []
    return [pid, *(one for child in started for one in family(int(child)))]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def environment_of(**variables):
    """Variables of a command line of this checkout, on a CPU."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "CUDA_VISIBLE_DEVICES": "",
        "PORT": free_port(),
        **variables,
    }
