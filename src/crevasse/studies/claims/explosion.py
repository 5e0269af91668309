"""C7: a program that is a little wrong is very wrong."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import ClassVar

import numpy as np
import torch

from crevasse.config import TrialConfig
from crevasse.formats import FORMATS
from crevasse.landscape import Ground
from crevasse.models import MODELS
from crevasse.models.constructed.counter import EXACT, factorial
from crevasse.probes.sharpness import directions
from crevasse.rules import RULES
from crevasse.solutions import constructed
from crevasse.studies.base import Budget, Row
from crevasse.studies.claims.base import Claim, Decision, Evidence, Ruling, Series, effect
from crevasse.studies.measures import Measure
from crevasse.tasks import parse_task

#: By how much a constant or all weights are changed.
EPSILONS = (1e-4, 1e-3, 1e-2, 1e-1)
#: Of those, the thesis' own, at which the claim is judged, and one at which growth with n is read.
AT, SMALL = 0.1, 1e-3
DRAWS = 10
#: The cell of the network that holds the program for residues, and lengths of its words.
CELL, LENGTHS = "iterated-product:p=13,T={},beyond={}", (2, 6, 16, 64, 199)
#: Perturbed answers of which still so many are right.
HELD = 0.99
#: Of itself, by what an answer is very wrong; and what is written as a number.
WRONG, MANY = 0.9, 1000
#: Errors beyond this count as this: floating point ends a little later.
CAP = 1e300


class Explosion(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C7"
    title: ClassVar[str] = "A little wrong is very wrong"
    quote: ClassVar[str] = (
        'incrementally different thetas from that "global minimizer" are all sharply worse. i.e. theta_star => n! = '
        "n*(n-1)!. If for example, we found n! = n*(1.1*n-1)! that would explode and be very wrong."
    )
    hypothesis: ClassVar[str] = (
        "A program of which one constant or all weights are changed by a tenth is very wrong, and the more so the "
        "larger n is: in numbers, and in a network that works on symbols."
    )
    experiment: ClassVar[str] = (
        "n! by a cell that counts down and multiplies in numbers: its decrement, its factor or all its weights "
        "changed by ε, for n = 2 … 22; and the crevasse cell with weights set by formula for products modulo 13, "
        "all changed at random by a share ε of each row, on words of up to 199 numbers."
    )
    rule: ClassVar[str] = (
        "Supported if each change in numbers by a tenth makes the answer at n = 22 wrong by .9 of itself or more, "
        "and more than at n = 2, and the network answers the longest words less often than the shortest, by .01 or "
        "more; half right if one of the two holds; refuted if neither."
    )
    change: ClassVar[str] = (
        "Nothing in numbers: it is arithmetic. In a network it depends on whether its states are corrected at each "
        "step, as a norm and a head that asks for the largest logit do."
    )

    def measure(self, budget: Budget, trials: Path, rows: Sequence[Row]) -> list[Measure]:
        found = []
        generator = torch.Generator().manual_seed(0)
        nudges = torch.randn(DRAWS, 27, generator=generator, dtype=torch.float64)
        for eps in EPSILONS:
            for n in range(2, EXACT + 1):
                exact = math.factorial(n)
                changed = {
                    "decrement": [factorial(n, decrement=1 + eps)],
                    "factor": [factorial(n, factor=1 + eps)],
                    "all weights": [factorial(n, nudge=eps * nudge) for nudge in nudges],
                }
                for label, values in changed.items():
                    error = median(_capped(abs(v / exact - 1)) for v in values)
                    found.append(self.note(f"relative error at {eps:g}", label, error, x=n))
        for n in range(2, EXACT + 1):  # the sentence itself: n · (1.1n − 1)!, with Γ between whole numbers
            error = math.exp(math.log(n) + math.lgamma(1.1 * n) - math.lgamma(n + 1)) - 1
            found.append(self.note("the thesis' example", "n·(1.1n−1)!", error, x=n))
        for length in LENGTHS if budget != "smoke" else LENGTHS[:2]:
            config = TrialConfig(
                parse_task(CELL.format(length, length + 1)), FORMATS.parse("direct"), MODELS.parse("bilinear"),
                RULES.parse("sgd"), train=100, held_out=200, steps=0,
            )  # fmt: skip
            weights, ground = constructed(config), Ground(config, "random")
            ways = directions(weights, DRAWS, seed=0, rows=ground.rows)
            for eps in (*EPSILONS, 0.2, 0.3, 0.5):
                right = float(np.mean([ground.exact(weights + eps * way) for way in ways]))
                found.append(self.note("network right", f"{eps:g}", right, x=length))
        return found

    def decide(self, evidence: Evidence) -> Ruling:
        kinds = ("decrement", "factor", "all weights")
        errors = {k: [m["value"] or 0.0 for m in evidence.measured(f"relative error at {AT:g}", k)] for k in kinds}
        explodes = all(of[-1] >= WRONG and of[-1] > of[0] for of in errors.values())
        growth = {k: _growth(evidence.measured(f"relative error at {SMALL:g}", k)) for k in kinds}
        network = evidence.measured("network right")
        at = sorted((m["x"] or 0.0, m["value"] or 0.0) for m in network if m["label"] == f"{AT:g}")
        falls = at[-1][1] < at[0][1] - 0.01
        held = [
            float(label) for label in dict.fromkeys(m["label"] for m in network)
            if all((m["value"] or 0.0) >= HELD for m in network if m["label"] == label)
        ]  # fmt: skip
        decision: Decision = "supported" if explodes and falls else "half right" if explodes or falls else "refuted"
        longest = max(round(m["x"] or 0) for m in network)
        key = (
            "in numbers a tenth makes 22! wrong by "
            + ", ".join(
                f"{f'{of[-1]:.1f}' if of[-1] < MANY else 'any number'} of itself ({k})" for k, of in errors.items()
            )
            + "; the network's answers stay right on words of up to "
            + (f"{longest} numbers with all weights changed by up to {max(held):.0%}" if held else "no length")
        )
        example = evidence.measured("the thesis' example")
        series: list[Series] = [
            {"name": f"{k}, ε = {AT:g}", "x": [m["x"] for m in some], "y": [m["value"] for m in some]}
            for k in kinds if (some := evidence.measured(f"relative error at {AT:g}", k))
        ]  # fmt: skip
        series.append({"name": "n·(1.1n−1)!", "x": [m["x"] for m in example], "y": [m["value"] for m in example]})
        effects = [
            *(effect(f"relative error of 22!, {k} changed by a tenth", min(of[-1], MANY)) for k, of in errors.items()),
            *(
                effect(f"power of n with which the error grows at ε = {SMALL:g}, {k}", min(growth[k], MANY))
                for k in kinds
            ),
            effect("largest share of change that the network bears at every length", max(held, default=0.0)),
        ]
        return Ruling(
            decision, key, effects,
            [
                {"kind": "lines", "caption": "Relative error of n! by the program in numbers",
                 "x": "n", "y": "relative error",
                 "log_x": True, "log_y": True, "series": series},
                {"kind": "lines", "caption": "Answers of the network with weights set by formula, by length, all "
                 "weights changed at random by a share of the length of each row", "x": "numbers multiplied",
                 "y": "share right", "log_x": True,
                 "series": [
                     {"name": f"ε = {label}", "x": [m["x"] for m in some], "y": [m["value"] for m in some]}
                     for label in dict.fromkeys(m["label"] for m in network)
                     if (some := [m for m in network if m["label"] == label])
                 ]},
            ],
        )  # fmt: skip


def _capped(error: float) -> float:
    return error if error < CAP else CAP  # also what is no number: infinity over infinity


def _growth(measures: Sequence[Measure]) -> float:
    """Slope of log error over log n, by least squares, as long as the error can be written down."""
    measures = [m for m in measures if (m["value"] or 0.0) < CAP]
    x = np.log([m["x"] or 1.0 for m in measures])
    y = np.log([max(m["value"] or 0.0, 1e-300) for m in measures])
    return float(np.polyfit(x, y, 1)[0])
