"""Making problems and starting the command: figures in seconds."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np

from crevasse.tasks import make_splits, parse_task
from measure import Figure, seconds


def figures() -> Iterator[Figure]:
    """200,000 products with answers and traces; splits of 100,000; `crevasse --help`."""
    task = parse_task("iterated-product")
    rng = np.random.default_rng(0)

    def make() -> None:
        task.solve(task.sample(rng, 200_000, task.train_sizes))

    yield Figure("200,000 iterated products with traces, s", [seconds(make) for _ in range(9)], "< 1")
    splits = [seconds(lambda: make_splits(task, 100_000)) for _ in range(5)]
    yield Figure("splits of 100,000 iterated products, s", splits, None)
    command = [sys.executable, "-m", "crevasse.cli", "--help"]
    starts = [seconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(9)]
    yield Figure("crevasse --help, s", starts[1:], "< 0.5")


if __name__ == "__main__":
    for figure in figures():
        print(figure)
