"""Starts the processes of a test: python ranks.py WORKER FOLDER WORLDS WORDS; see processes.py.

They are forked from this one, since to import mmpretrain takes each seconds.
"""

import importlib.util
import os
import signal
import sys
import traceback
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # threads do not survive a fork

from processes import free_port  # noqa: E402


def import_worker(path):
    sys.path.insert(0, str(Path(path).parent))
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(main, rank, world, port, words):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        own = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=world, LOCAL_WORLD_SIZE=world)
        own.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        os.environ.update({key: str(value) for key, value in own.items()})
        main(*words)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run_world(main, world, words):
    port = free_port()
    children = {start(main, rank, world, port, words) for rank in range(world)}
    while children:
        child, status = os.wait()
        children.discard(child)
        if status:
            for other in children:  # they may wait for the one that ended
                os.kill(other, signal.SIGKILL)
            raise SystemExit(1)


if __name__ == "__main__":
    path, folder, worlds, *words = sys.argv[1:]
    main = import_worker(path).main
    import mmpretrain.models  # noqa: F401
    import yapf.yapflib.yapf_api

    # MMEngine formats each config five times a run.
    yapf.yapflib.yapf_api.FormatCode = lambda text, **_: (text, True)
    for world in map(int, worlds.split(",")):
        Path(folder, str(world)).mkdir(exist_ok=True)
        run_world(main, world, [str(Path(folder, str(world))), *words])
