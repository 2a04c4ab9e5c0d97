"""What a GPU that is at hand for a few minutes should show, most important first.

    python tests/gpu/session.py --minutes 15 --results gpu_session

1. the tests that need CUDA,
2. the row WRN-28-4 -> WRN-16-2 of Table 1 on CIFAR-100 at full resolution, with as many epochs as
   fit into the time that is left,
3. the speed of training that pair.

Each step has its own time limit and writes its output into the results folder as it comes, so that
a session which is cut off keeps what it has. The same in small, on a CPU:

    python tests/gpu/session.py --devices cpu,cpu --scale digits --minutes 6
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
ROW = dict(
    full=dict(
        options=["--only", "teacher", "wrn16-2_*"], config="configs/kd/wrn28-4_wrn16-2_mse.py"
    ),
    digits=dict(
        options=["--scale", "digits", "--only", "teacher", "wrn10_1_ce", "wrn10_1_mse"],
        config="configs/kd/wrn16-2_wrn10-1-thin_mse_digits.py",
    ),
)
TRIALS = 1, 3  # epochs, from whose times those that fit are computed
MOST_EPOCHS = 200  # the paper's


def main() -> None:
    """Run the steps one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="of the whole session")
    parser.add_argument("--results", type=Path, default=Path("gpu_session"))
    parser.add_argument("--scale", choices=list(ROW), default="full")
    parser.add_argument("--devices", default="0,0,0,0", help="of reproduce.py, or cpu,cpu")
    args = parser.parse_args()
    args.results = args.results.resolve()  # the steps run in the project's folder
    session = Session(args.minutes * 60, args.results)
    on_cpu = "cpu" in args.devices
    row = ROW[args.scale]

    tests = ["-m", "pytest", "-q", "tests/gpu"] + ["-k", "losses"] * on_cpu
    session.run("tests", 0.25, tests, dict(MMKD_LOGIT_GPU_TESTS="cpu") if on_cpu else {})

    command = ["tools/reproduce.py", "table1", *row["options"], "--fast", "--no-report"]
    command += ["--devices", args.devices, "--seeds", "1"]
    trials = []
    for epochs in TRIALS:
        words = [*command, "--results", str(args.results / f"trial{epochs}")]
        trials.append(session.run(f"trial{epochs}", 0.3, [*words, "--epochs", str(epochs)]))
    if None not in trials:
        first, second = trials
        an_epoch = max(0.1, (second - first) / (TRIALS[1] - TRIALS[0]))
        start = max(0.0, first - TRIALS[0] * an_epoch)
        epochs = int((session.left() * 0.75 - start) / an_epoch)
        epochs = min(MOST_EPOCHS, max(1, epochs))
        session.note(epochs=epochs, seconds_an_epoch=an_epoch, seconds_to_start=start)
        words = [*command, "--results", str(args.results), "--epochs", str(epochs)]
        session.run("row", 0.85, words)

    speed = ["tools/benchmark.py", row["config"], "--json", str(args.results / "speed.json")]
    in_small = ["--seconds", "1", "--variants", "bare", "exact"]  # compiling takes minutes
    session.run("speed", 1.0, [*speed, *in_small * on_cpu])


class Session:
    """Runs steps, each within its share of the time that is left."""

    def __init__(self, seconds: float, results: Path) -> None:
        self.end = time.monotonic() + seconds
        self.results = results
        results.mkdir(parents=True, exist_ok=True)
        self.notes: dict = {}

    def left(self) -> float:
        """Seconds until the session ends."""
        return max(0.0, self.end - time.monotonic())

    def note(self, **values) -> None:
        """Write what is known by now."""
        self.notes.update(values)
        (self.results / "session.json").write_text(json.dumps(self.notes, indent=1))

    def run(self, name: str, share: float, command: list[str], environment: dict | None = None):
        """Run a step; return its seconds, or None where it failed or was cut off."""
        limit = self.left() * share
        print(f"== {name}: {' '.join(command)} (at most {limit:.0f} s)", flush=True)
        begin = time.monotonic()
        status: int | str
        with open(self.results / f"{name}.log", "w") as log:
            try:
                status = subprocess.run(
                    [sys.executable, *command],
                    cwd=PROJECT,
                    env={**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=limit,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                status = "timeout"
        seconds = time.monotonic() - begin
        self.note(**{name: dict(status=status, seconds=round(seconds, 1))})
        lines = (self.results / f"{name}.log").read_text().splitlines()
        print("\n".join(lines[-30:]), flush=True)
        return seconds if status == 0 else None


if __name__ == "__main__":
    main()
