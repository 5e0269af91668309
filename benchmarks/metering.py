"""What metering costs: the training loop at the default cadence against the same loop without, in pairs."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from crevasse.api import make_config
from crevasse.trial import run_trial
from measure import Figure


def figures() -> Iterator[Figure]:
    """Training seconds with metering over those without."""
    for text, form, model in (
        ("iterated-product", "direct", "transformer"),
        ("iterated-product", "trace", "transformer"),
        ("iterated-product:T=1-6", "direct", "bilinear"),
    ):
        config = make_config(text, form, model, train=2000, steps=300)
        values = []
        for seed in range(6):
            with tempfile.TemporaryDirectory() as folder:
                metered = run_trial(replace(config, seed=seed), Path(folder))["result"]["train_seconds"]
                plain = run_trial(replace(config, seed=seed), Path(folder) / "plain", meter=False)["seconds"]
            values.append(metered / plain)
        yield Figure(f"metered over plain loop: {text} {form} {model}", values[1:], "≤ 1.10")


if __name__ == "__main__":
    for figure in figures():
        print(figure)
