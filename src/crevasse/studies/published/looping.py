"""Parity by one block that is looped: on longer words (Fan et al. 2024), and with more loops than it was trained with
(Anil et al. 2022, Bansal et al. 2022)."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor
from torch.nn.utils import vector_to_parameters

from crevasse.config import TrialConfig
from crevasse.documents import Data, head
from crevasse.formats.generate import generate
from crevasse.landscape import read_place
from crevasse.spec import describe, require
from crevasse.studies.base import Arm, Budget, Row
from crevasse.studies.measures import Measure
from crevasse.studies.published.base import Check, Evidence, Result, check

#: From here on a learner answers; and by so much an answer rate must fall to have fallen.
SOLVED, FALL = 0.95, 0.1
#: Times as many loops as in training, and problems that are asked.
TIMES = (1, 2, 4)
SAID = {2: "twice", 4: "four times"}
PROBLEMS = 512
SERIES = "more loops"


class LoopedParity(Result):
    """See its sentences."""

    key: ClassVar[str] = "looped"
    title: ClassVar[str] = "Parity of words twice as long, by a loop a bit"
    paper: ClassVar[str] = "Fan et al. 2024"
    reported: ClassVar[str] = (
        "A looped transformer without positions, one loop a step, that is trained on up to 20 bits answers words of "
        "more than 40 bits near perfectly."
    )
    source: ClassVar[str] = "arXiv 2409.15647: section 6.2, as one of its readers quotes it word for word."
    differs: ClassVar[str] = (
        "One block of width 64 with four heads; lengths mixed from the start instead of growing; the first bit is "
        "marked instead of a token before the word; a fixed set of problems, which holds out a fifth of all counts; "
        "far fewer steps. At minutes up to 10 bits are trained and 20–24 asked."
    )
    rule: ClassVar[str] = (
        f"Agrees where the mean is {SOLVED:.0%} or more: on held-out words of the trained lengths, and on those at "
        "least twice as long. The first repeats nothing by itself."
    )

    def arms(self, budget: Budget) -> list[Arm]:
        lengths, train, steps, seeds = {
            "smoke": ("T=1-4,beyond=8", 16, 20, 1),
            "minutes": ("T=1-10,beyond=20-24", 1000, 800, 3),
            "full": ("T=1-20,beyond=40-44", 20_000, 2000, 3),
        }[budget]
        return [
            self.make("parity", "looped, no positions (paper: nearly 100%)", f"parity:{lengths}", "direct",
                      "looped:position=first", "adamw:lr=0.001", seeds=seeds, steps=steps, train=train, batch=64)
        ]  # fmt: skip

    def checks(self, evidence: Evidence) -> list[Check]:
        def solved(mean: float) -> bool:
            return mean >= SOLVED

        return [
            check(
                "trained lengths", "nearly 100%", evidence.values("parity", "random"), solved, figure=1, contrast=True
            ),
            check("twice as long", "nearly 100%", evidence.values("parity", "extrapolation"), solved, figure=1),
        ]


class Overlooping(Result):
    """See its sentences."""

    key: ClassVar[str] = "overlooping"
    title: ClassVar[str] = "More loops than in training"
    paper: ClassVar[str] = "Anil et al. 2022, Bansal et al. 2022"
    reported: ClassVar[str] = (
        "With the input added again in each loop (recall) and progressive training accuracy stays when a model is "
        "looped longer than it was trained; without both of them it falls."
    )
    source: ClassVar[str] = "The abstracts of arXiv 2202.05826 and 2211.09961, which give no figure for it."
    differs: ClassVar[str] = (
        "The looped parity model, which has recall and is not trained progressively: so accuracy should fall. That "
        "it stays with both is not tried: nothing here trains progressively. Read on held-out words of trained lengths."
    )
    rule: ClassVar[str] = (
        f"With twice and with four times the loops a figure agrees where {SOLVED:.0%} or more were right with its own "
        f"loops and the mean over seeds of what is lost is at least {FALL}. That it answers with its own loops repeats "
        "nothing by itself."
    )

    def arms(self, budget: Budget) -> list[Arm]:
        """Those of the looped parity, under a name of its own: they are run once."""
        (trained,) = LoopedParity().arms(budget)
        title = "the same, looped longer (paper: falls)"
        return [replace(trained, name=f"{self.key}/parity", title=title, group=f"{self.title} ({self.paper})")]

    def measure(self, trials: Path, rows: Sequence[Row]) -> list[Measure]:
        found: list[Measure] = []
        for row in rows:
            if row["status"] != "done":
                continue
            config, weights = (
                TrialConfig.from_json(json.loads(row["config"])),
                read_place(trials / row["trial"]).weights,
            )
            found += [
                {"claim": self.key, "version": self.version, "series": SERIES, "label": "random", "seed": row["seed"],
                 "x": float(times), "value": looped_longer(config, weights, times)}
                for times in TIMES
            ]  # fmt: skip
        return found

    def checks(self, evidence: Evidence) -> list[Check]:
        by_times = {
            times: {m["seed"]: m["value"] for m in evidence.measures
                    if m["series"] == SERIES and m["x"] == times and m["value"] is not None}
            for times in TIMES
        }  # fmt: skip
        own = by_times[1]
        base = check(
            "right with its own loops, which the others need",
            "nearly all",
            list(own.values()),
            lambda v: v >= SOLVED,
            contrast=True,
        )

        def lost(times: int) -> Check:
            losses = [own[seed] - value for seed, value in by_times[times].items() if seed in own]
            return check(f"accuracy lost with {SAID[times]} the loops", "some", losses,
                         lambda v: base["agrees"] and v >= FALL)  # fmt: skip

        return [base, *(lost(times) for times in TIMES[1:])]


def looped_longer(config: TrialConfig, weights: Tensor, times: int, split: str = "random") -> float:
    """Share of problems answered rightly when the block is applied `times` as often as in training. weights (weight,)

    Raises UserError for a model that is not looped once a step.
    """
    loops = getattr(config.model, "loops", None)
    require(loops == 0, f"more loops are given to the model looped with loops=0, not to {describe(config.model)}")
    data = Data(config)
    model = config.model.build(data.script.size, data.context, data.silent)
    vector_to_parameters(weights, model.parameters())
    encoded, problems = data.split(split)
    encoded, problems = head(encoded, PROBLEMS), problems.take(np.arange(len(problems))[:PROBLEMS])
    longer = replace(encoded, steps=times * encoded.steps)
    return float(np.mean([o.correct for o in generate(model, data.form, data.script, longer, problems.x)]))
