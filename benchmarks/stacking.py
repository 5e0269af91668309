"""Many trials: sixteen seeds against sixteen plain loops in a row, and a phase diagram of the bilinear cell.

Our time is that of the whole sweep on all cores: data, worker processes, metering, judgement and all. The plain loops
do nothing but train; four are run and counted four times.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from crevasse import memory
from crevasse.api import make_config
from crevasse.documents import Data, Rows
from crevasse.passes import Alone, Look, Stack
from crevasse.processes import World
from crevasse.rules import Weights
from crevasse.sweep import run_all
from measure import Figure, ratios, seconds
from peers import PlainCell, PlainDecoder, plain_loop

TASK = "iterated-product:p=13,T=6,beyond="


def figures() -> Iterator[Figure]:
    """Ratios, a time, and what a stack gains by itself on one core."""
    torch.set_num_threads(1)
    yield from sixteen("transformer:width=32", PlainDecoder, "≥ 5")
    yield from sixteen("bilinear", PlainCell, None)
    yield Figure("phase diagram: 100 trials of 1000 steps, minutes", [phase_diagram() / 60], "≤ 3")
    yield from gains()


def sixteen(model: str, plain, goal: str | None) -> Iterator[Figure]:
    """Sixteen seeds, batch 64, on all cores."""
    config = make_config(TASK, "direct", model, train=2000, batch=64, steps=1000, held_out=200, probe_every=50)
    data = Data(config)
    rows = Rows.of(data.train)
    found = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            configs = [replace(config, seed=s, data_seed=0) for s in range(16)]
            ours = seconds(lambda: run_all(configs, Path(folder)))  # noqa: B023
        built = plain(config.model.build(data.script.size, data.context, data.silent))
        row = 4 * sum(seconds(lambda: plain_loop(built, rows, config.steps, config.batch)) for _ in range(4))  # noqa: B023
        found.append(row / ours)
    yield Figure(f"16 seeds of {model}, batch 64: speed over 16 plain loops in a row", found, goal)


def phase_diagram() -> float:
    """Seconds: sizes of the training set × weight decay × 5 seeds of the bilinear cell."""
    config = make_config(TASK, "direct", "bilinear", batch=128, steps=1000, held_out=500)
    configs = [
        replace(config, train=train, rule=replace(config.rule, decay=decay), seed=seed)
        for train in (2000, 4000, 8000, 20_000, 100_000)
        for decay in (0.01, 0.1, 1.0, 3.0)
        for seed in range(5)
    ]
    with tempfile.TemporaryDirectory() as folder:
        return seconds(lambda: run_all(configs, Path(folder)))


def gains() -> Iterator[Figure]:
    """Steps a second of eight stacked trials over those of eight one by one, on one core."""
    for form, model, batch in (
        ("direct", "bilinear:width=12,products=24", 500), ("direct", "bilinear", 64), ("direct", "bilinear", 128),
        ("direct", "bilinear", 512), ("direct", "gru", 128), ("direct", "transformer:width=32", 64),
        ("direct", "transformer", 128), ("trace", "transformer:width=32", 64), ("direct", "looped:width=32", 64),
        ("direct", "transformer:width=128", 128),
    ):  # fmt: skip
        config = make_config(TASK, form, model, train=2000)
        found = _gain([replace(config, seed=s) for s in range(8)], batch)
        yield Figure(f"8 in a stack over one by one: {form} {model}, batch {batch}", found, None)


def _gain(configs, batch: int) -> list[float]:
    memory.keep_pages()  # as every trial does
    part = torch.arange(batch)
    members = []
    for config in configs:
        data = Data(config)
        model = config.model.build(data.script.size, data.context, data.silent)
        members.append((model, Weights(model), Look(Rows.of(data.train), (part,), slopes=True)))
    model, weights, look = members[0]
    alone = Alone(model, weights, 0, World())
    stack = Stack([m for m, _, _ in members], [w for _, w, _ in members])
    looks = [look for _, _, look in members]

    def one_by_one() -> None:
        for _ in members:
            alone.look(look)

    return ratios(one_by_one, lambda: stack.look(looks))


if __name__ == "__main__":
    for figure in figures():
        print(figure)
