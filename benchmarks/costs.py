"""How cost grows: time and memory against steps, trials, width and length. Each point in a process of its own.

The point in the middle is a transformer of width 64 on products of 8 factors, batch 64, answer only.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from measure import Figure, seconds

MIDDLE = {"steps": 100, "trials": 1, "width": 64, "factors": 8}
POINTS = (
    ("steps", (50, 100, 200, 400)), ("trials", (1, 4, 16, 64)), ("width", (32, 64, 128, 256)),
    ("factors", (4, 8, 16, 32)),
)  # fmt: skip
ROUNDS = 3


def figures() -> Iterator[Figure]:
    """Seconds of training and most memory, point by point."""
    for what, values in POINTS:
        for value in values:
            found = [measured({**MIDDLE, what: value}) for _ in range(ROUNDS)]
            name = f"{what} = {value}"
            yield Figure(f"cost: {name}: seconds", [time for time, _ in found], None)
            yield Figure(f"cost: {name}: most memory in MB, torch included", [most for _, most in found], None)


def measured(point: dict[str, int]) -> tuple[float, float]:
    """Seconds and MB of one point, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, json.dumps(point)], capture_output=True, text=True, check=True)
    time, most = json.loads(done.stdout)
    return time, most


def point(steps: int, trials: int, width: int, factors: int) -> tuple[float, float]:
    """The same here."""
    from crevasse import memory
    from crevasse.api import make_config
    from crevasse.sweep import run_all

    config = make_config(
        f"iterated-product:p=13,T={factors},beyond=", "direct", f"transformer:width={width}", train=2000, batch=64,
        steps=steps, held_out=50, probe_every=steps,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run_all([replace(config, steps=2)], Path(folder), workers=1)  # imports and first touches
        configs = [replace(config, seed=seed) for seed in range(trials)]
        time = seconds(lambda: run_all(configs, Path(folder), workers=1))
    return time, memory.peak() / 1e6


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(point(**json.loads(sys.argv[1]))))
    else:
        for figure in figures():
            print(figure)
