"""C6: the rule lies in a sharp crevasse, memory in a wide bowl."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from scipy.stats import binomtest
from torch import Tensor

from crevasse.config import TrialConfig
from crevasse.landscape import Ground, read_place
from crevasse.probes import landscape, sharpness
from crevasse.solutions import constructed
from crevasse.studies.base import Arm, Budget, Row
from crevasse.studies.claims.base import (
    FOUND,
    Claim,
    Decision,
    Effect,
    Evidence,
    Picture,
    Ruling,
    Series,
    effect,
    share,
)
from crevasse.studies.measures import Measure
from crevasse.survey import DRAWS, KEPT, RADII

CELL = "iterated-product"
#: Kind of solution -> in words. The rule is read on the same problems as memory, all of them of six factors.
KINDS = {
    "found": "the rule, found by training on mixed lengths",
    "built": "the rule, set by formula",
    "memory": "memory of the answers",
    "random": "memory of shuffled answers",
}
#: Measure -> what it is, whether it changes with the scale of the weights, whether more of it is sharper.
MEASURES = {
    "largest eigenvalue": ("raw", True),
    "trace": ("raw", True),
    "trace at equal loss": ("raw", True),
    "adaptive sharpness": ("scale-invariant", True),
    "tolerance": ("scale-invariant", False),
}
#: The two that decide.
RAW, INVARIANT = "trace at equal loss", "tolerance"
ALPHA = 0.05
#: The mean training loss at which curvature is compared: near zero it tells how sure the answers are, and little else.
EQUAL = 0.01
#: Of its problems, what a solution has to answer for its pair to count.
ANSWERED = 0.99


class Sharpness(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C6"
    title: ClassVar[str] = "A sharp crevasse, a wide bowl"
    quote: ClassVar[str] = (
        "So the correct solution is at the bottom of a sharp, deep crevasse. The memorizing solution is at the "
        "bottom of a deep wide bowl, that gets incrementally better as you memorize a bit more of the input-output "
        "tokens mapping."
    )
    hypothesis: ClassVar[str] = (
        "In one architecture and on the same problems, all of them answered right, the loss is sharper around "
        "weights that hold the rule than around weights that hold the answers."
    )
    experiment: ClassVar[str] = (
        "The crevasse cell with four kinds of solution: the rule found by training on lengths 1–6, the rule set by "
        "formula, memory of the answers, and memory of shuffled answers, read on the first 512 training problems of "
        "memory. A pair a data seed, if found rule and memory both answer 99% of these and the one answers held-out "
        "problems and the other does not. Raw: the trace of the Hessian, once the head is scaled so that all have a "
        "loss of .01. Scale-invariant: the tolerance, the largest random change of all weights, as a share of the "
        "length of each row, up to which nine of ten answers stay right."
    )
    rule: ClassVar[str] = (
        "By a sign test over the pairs of found rule and memory, in the raw and in the scale-invariant measure (p ≤ "
        ".05 each): supported if the rule is sharper in both, half right if it is sharper in one, refuted if it is "
        "flatter in one or both and sharper in none; else undecided."
    )
    change: ClassVar[str] = (
        "Other solutions of the same kind: each is one that AdamW came to. The formula's weights have a scale of "
        "their own, so only the scale-invariant measures of them mean anything."
    )

    def arms(self, budget: Budget) -> list[Arm]:
        seeds, steps = {"smoke": (1, 1500), "minutes": (8, 1500), "full": (12, 3000)}[budget]
        common: dict[str, Any] = {"seeds": seeds, "steps": steps, "batch": 64, "train": 2000}
        return [
            self.make("found", KINDS["found"], f"{CELL}:T=1-6", "direct", "bilinear", **common),
            self.make("memory", KINDS["memory"], CELL, "direct", "bilinear", **common),
            self.make("random", KINDS["random"], CELL, "direct", "bilinear", labels="random", **common),
        ]

    def measure(self, budget: Budget, trials: Path, rows: Sequence[Row]) -> list[Measure]:
        found: list[Measure] = []
        by_kind = {(r["arm"].partition("/")[2], r["seed"]): r for r in rows if r["status"] == "done"}
        for seed in sorted({seed for _, seed in by_kind}):
            grounds = {
                kind: Ground(TrialConfig.from_json(json.loads(by_kind[kind, seed]["config"])))
                for kind in ("memory", "random") if (kind, seed) in by_kind
            }  # fmt: skip
            if "memory" not in grounds:
                continue
            weights = {kind: read_place(trials / by_kind[kind, seed]["trial"]).weights
                       for kind in ("found", "memory", "random") if (kind, seed) in by_kind}  # fmt: skip
            weights["built"] = constructed(grounds["memory"].config)
            for kind, at in weights.items():
                found += self._around(kind, seed, grounds["random" if kind == "random" else "memory"], at)
            if "found" in weights:
                found += self._between(seed, grounds["memory"], weights["found"], weights["memory"])
        return found

    def _around(self, kind: str, seed: int, ground: Ground, at: Tensor) -> list[Measure]:
        """How sharp it is at these weights."""
        loss = ground.loss
        top = sharpness.eigenvalues(loss, at, 1, seed=seed, tolerance=0.01, limit=100)
        ways = sharpness.directions(at, DRAWS, seed=seed, rows=ground.rows)
        read = [[ground.read(at + r * way) for way in ways] for r in RADII]
        rises = [sum(loss for loss, _ in of) / DRAWS for of in read]
        exact = [ground.exact(at), *(sum(right for _, right in of) / DRAWS for of in read)]
        values = {
            "loss": float(loss(at)),
            "exact": exact[0],
            "largest eigenvalue": float(top.values[0]) if top.converged else None,
            "trace": sharpness.trace(loss, at, seed=seed, draws=16).value,
            "trace at equal loss": sharpness.trace(loss, ground.with_loss(at, EQUAL), seed=seed, draws=16).value,
            "adaptive sharpness": sharpness.adaptive_worst(loss, at, 0.5, seed=seed),
            "tolerance": sharpness.tolerance([0.0, *RADII], exact, KEPT),
        }
        return [
            *(self.note(name, kind, value, seed=seed) for name, value in values.items()),
            *(self.note("perturbed loss", kind, v, x=r, seed=seed) for r, v in zip(RADII, rises, strict=True)),
            *(self.note("perturbed exact", kind, v, x=r, seed=seed) for r, v in zip([0.0, *RADII], exact, strict=True)),
        ]

    def _between(self, seed: int, ground: Ground, a: Tensor, b: Tensor) -> list[Measure]:
        """Along the line from the rule found (0) to memory (1), once its units are in the same order."""
        b, _ = landscape.align(a, b, ground.shapes, ground.units, seed=seed)
        profile = landscape.line(ground.loss, a, b)
        return [
            self.note("line", "from the rule to memory", v, x=t, seed=seed)
            for t, v in zip(profile.t.tolist(), profile.losses.tolist(), strict=True)
        ]

    def decide(self, evidence: Evidence) -> Ruling:
        pairs = _pairs(evidence)
        signs = {name: self._signs(evidence, name, pairs) for name in MEASURES}
        said = {name: _said(*counts) for name, counts in signs.items()}
        both = [said[RAW], said[INVARIANT]]
        decision: Decision = "undecided"
        if "sharper" in both:
            decision = "supported" if both == ["sharper", "sharper"] else "half right"
        elif "flatter" in both:
            decision = "refuted"
        middle = {kind: _median(evidence, INVARIANT, kind) for kind in KINDS}
        curved = _median(evidence, RAW, "found"), _median(evidence, RAW, "memory")
        key = (
            f"the rule is {_words(said[RAW], *signs[RAW])} by the raw measure"
            + (f" (trace {curved[0]:.3g} against {curved[1]:.3g})" if None not in curved else "")
            + f" and {_words(said[INVARIANT], *signs[INVARIANT])} by the scale-invariant one: weights can change "
            f"by {share(middle['found'])} of their length around the rule, by {share(middle['memory'])} around memory"
        )
        effects: list[Effect] = []
        for name, (kind, _) in MEASURES.items():
            sharper, of = signs[name]
            effects.append(effect(f"{name} ({kind}): pairs in which the rule is sharper, of {of}", float(sharper)))
            for which in KINDS:
                effects.append(effect(f"{name}, {KINDS[which]}", _median(evidence, name, which)))
        return Ruling(decision, key, effects, self._pictures(evidence))

    def _signs(self, evidence: Evidence, name: str, seeds: Sequence[int | None]) -> tuple[int, int]:
        """In how many of these seeds the found rule is sharper than memory, and of how many that differ."""

        def by_seed(kind: str) -> dict[int | None, float]:
            return {m["seed"]: m["value"] for m in evidence.measured(name, kind) if m["value"] is not None}

        a, b = by_seed("found"), by_seed("memory")
        more = MEASURES[name][1]
        pairs = [(a[k], b[k]) if more else (b[k], a[k]) for k in seeds if k in a and k in b and a[k] != b[k]]
        return sum(x > y for x, y in pairs), len(pairs)

    def _pictures(self, evidence: Evidence) -> list[Picture]:
        def lines(series: str, label: Callable[[str], str]) -> list[Series]:
            drawn: list[Series] = []
            for name in dict.fromkeys(m["label"] for m in evidence.measured(series)):
                at: dict[float, list[float]] = {}
                for m in evidence.measured(series, name):
                    at.setdefault(m["x"] or 0.0, []).append(m["value"] or 0.0)
                drawn.append({
                    "name": label(name), "x": list(at), "y": [median(v) for v in at.values()],
                    "low": [min(v) for v in at.values()], "high": [max(v) for v in at.values()],
                })  # fmt: skip
            return drawn

        return [
            {"kind": "lines",
             "caption": "Training answers that stay right when all weights are changed at random, as a "
             "share of the length of each row of weights; the middle of the data seeds and their range",
             "x": "random change of the weights", "y": "share right",
             "series": lines("perturbed exact", lambda kind: KINDS[kind])},
            {"kind": "lines",
             "caption": "Training loss on the straight line from the rule that was found (0) to memory "
             "(1), once memory's units stand in the same order", "x": "way from the rule to memory", "y": "loss",
             "series": lines("line", lambda name: name)},
        ]  # fmt: skip


def _pairs(evidence: Evidence) -> list[int | None]:
    """The data seeds whose two solutions are what they are called: rule and memory, each answering its problems."""
    right = {(m["label"], m["seed"]): m["value"] or 0.0 for m in evidence.measured("exact")}
    held_out = {(name, r["seed"]): r["random"] for name in ("found", "memory") for r in evidence.of(name)}
    return [
        seed
        for (kind, seed), exact in right.items()
        if kind == "found"
        and min(exact, right.get(("memory", seed), 0.0)) >= ANSWERED
        and held_out.get(("found", seed), 0.0) >= FOUND > held_out.get(("memory", seed), 1.0)
    ]


def _said(sharper: int, pairs: int) -> str:
    """sharper, flatter, or neither, by a two-sided sign test."""
    if not pairs or binomtest(sharper, pairs).pvalue > ALPHA:
        return "neither"
    return "sharper" if 2 * sharper > pairs else "flatter"


def _words(said: str, sharper: int, pairs: int) -> str:
    count = pairs - sharper if said == "flatter" else sharper
    return f"{'neither sharper nor flatter' if said == 'neither' else said} ({count} of {pairs} pairs)"


def _median(evidence: Evidence, name: str, kind: str) -> float | None:
    values = [m["value"] for m in evidence.measured(name, kind) if m["value"] is not None and math.isfinite(m["value"])]
    return float(median(values)) if values else None
