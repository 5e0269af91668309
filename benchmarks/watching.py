"""What the watch costs in a plain PyTorch loop at the default pace.

Timed within each run: the seconds that went into the watch (its checks, its first reading and all others) over those
that went into training; two runs of the same loop differ by more than the watch costs. And the usual way beside it: the
same loop with the watch over without, in pairs.

Three hidden layers of width 256 on 256 numbers, batch 128, AdamW, 2000 steps; and a small one (width 64, batch 64),
whose steps are so short that calls count for more than products.
"""

import time
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn

from crevasse.integrations.watch import LockstepWatch
from measure import Figure, seconds

STEPS = 2000


def figures() -> Iterator[Figure]:
    """Seconds of the loop with the watch over those without, and what was counted beforehand."""
    torch.set_num_threads(1)
    for what, width, batch in (("width 256, batch 128", 256, 128), ("width 64, batch 64", 64, 64)):
        values, within, counted = [], [], 0.0
        for i in range(4):  # the first round warms up
            pair = {}
            for watched in (True, False) if i % 2 else (False, True):
                pair[watched], cost, spent = loop(width, batch, watched)
                counted = max(counted, cost)
                if watched:
                    within.append(1 + spent / (pair[True] - spent))
            values.append(pair[True] / pair[False])
        yield Figure(f"plain PyTorch loop, time of the watch within a run: {what}", within[1:], "≤ 1.05")
        yield Figure(f"plain PyTorch loop with the watch over without: {what}", values[1:], "≤ 1.05")
        yield Figure("the same, as counted beforehand", [1 + counted], None)


def loop(width: int, batch: int, watched: bool) -> tuple[float, float, float]:
    """Seconds of one training with all that the watch does, what was counted, and the seconds of the watch alone."""
    torch.manual_seed(0)
    x, y = torch.randn(4000, 256), torch.randint(10, (4000,))
    sizes = (256, width, width, width)
    hidden = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(*hidden, nn.Linear(width, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    cost = spent = 0.0

    def loss_of(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    def train() -> None:
        nonlocal cost, spent
        watch, began = None, time.perf_counter()
        if watched:
            sides = {"train": (x[:3500], y[:3500]), "held_out": (x[3500:], y[3500:])}
            watch = LockstepWatch(model, loss_of, **sides, steps=STEPS, batch=batch)
            cost = watch.cost
            spent = time.perf_counter() - began
        for _ in range(STEPS):
            i = torch.randint(3500, (batch,))
            optimizer.zero_grad()
            loss_of(model, (x[i], y[i])).backward()
            optimizer.step()
            if watch is not None:
                began = time.perf_counter()
                watch.step()
                spent += time.perf_counter() - began

    return seconds(train), cost, spent


if __name__ == "__main__":
    for figure in figures():
        print(figure)
