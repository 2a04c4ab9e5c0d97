"""One process of the scaling table."""

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import barrier, broadcast_object_list, get_world_size, is_main_process

from mmkd_logit.checkpoint import install_safe_reading
from mmkd_logit.engine.launch import silence_known_warnings

from .timing import LEAST_ROUNDS, timed

_STEPS = dict(cpu=1, cuda=20)


def main(file: str) -> None:
    """Train and time."""
    silence_known_warnings()
    install_safe_reading()
    from .sessions import base_config
    from .speed import VARIANTS

    settings: dict[str, Any] = json.loads(Path(file).read_text())
    torch.set_num_threads(settings["threads"])
    device = torch.device(get_device())
    launcher = "pytorch" if settings["processes"] > 1 else "none"
    with tempfile.TemporaryDirectory() as folder:
        cfg, _ = base_config(work_dir=folder, launcher=launcher, **settings["config"])
        session = VARIANTS[settings["variant"]].open(cfg, device, settings["workers"])
        assert get_world_size() == settings["processes"]
        steps = _STEPS[device.type]
        for _ in range(3 * steps + session.stock):
            once = timed(session.step, device)
        # All processes must do the same number of steps, so one of them decides it.
        plan = [max(math.ceil(settings["seconds"] / (once * steps)), LEAST_ROUNDS)]
        broadcast_object_list(plan)
        times = []
        for _ in range(plan[0]):
            barrier()
            times.append(timed(session.step, device, steps))
    if is_main_process():
        Path(settings["out"]).write_text(json.dumps(times))


if __name__ == "__main__":
    main(sys.argv[1])
