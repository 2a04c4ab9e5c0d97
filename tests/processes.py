"""Command lines in processes of their own."""

import os
import socket
import subprocess
import sys
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


def run(*command, **variables):
    environment = environment_of(**variables)
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def run_on_two(worker, folder):
    """Run a file of tests/distributed in two processes; it writes RANK.pt to the folder."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
    torchrun += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    done = run(*torchrun, str(HERE / "distributed" / worker), str(folder))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def run_ranks(worker, folder, *words, worlds=(2, 4)):
    """Run a worker file of the tests in 2 and in 4 processes, forked from one that has imported it.

    Its ``main(FOLDER/WORLD, *words)`` is called in each.
    """
    sizes = ",".join(map(str, worlds))
    command = [sys.executable, str(HERE / "ranks.py"), str(HERE / worker), str(folder), sizes]
    done = run(*command, *map(str, words))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder
