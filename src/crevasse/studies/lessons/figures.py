"""What the lives say: each figure with its interval over lives, and beside each goal whether it is met."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crevasse.errors import UserError
from crevasse.lessons.apply import METHODS
from crevasse.lessons.regret import AFTER
from crevasse.lessons.world import Floats
from crevasse.stats import Score
from crevasse.studies.lessons.lives import BINS, CALIBRATION, JUDGED, KEPT, LIVES, OWN
from crevasse.studies.measures import Measure

#: What is looked at first, and the goals that it was set: what it closes of the gap to an oracle after so many
#: incidents, and in how many lives of pure chance it may draw a lesson at most.
SUBJECT, GOAL_AFTER, GOAL_GAP, GOAL_FALSE = "common-sense", 3, 0.9, 0.05
RESAMPLES = 2000


@dataclass(frozen=True)
class Lives:
    """after: numbers of incidents; values: (series, method) -> (incidents, life); weights: of the lives in each
    bootstrap sample, (sample, life)."""

    after: tuple[int, ...]
    values: dict[tuple[str, str], Floats]
    weights: Floats

    @property
    def count(self) -> int:
        return int(self.weights.shape[1])

    @property
    def methods(self) -> list[str]:
        there = {method for _, method in self.values}
        return [m for m in METHODS if m in there]

    @property
    def fixed(self) -> list[str]:
        """The fixed augmentations."""
        return [m for m in self.methods if m.startswith("augment-")]

    def of(self, series: str, method: str, n: int) -> Floats:
        """(life,)"""
        row: Floats = self.values[series, method][self.after.index(n)]
        return row

    def ratio(self, above: Floats, below: Floats) -> Score | None:
        """The ratio of two means over lives, and its 95% percentile bootstrap interval: lives are drawn again, both
        means with them. None where the lower mean is 0."""
        if not below.mean():
            return None
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn = (self.weights @ above) / (self.weights @ below)
        low, high = np.percentile(drawn[np.isfinite(drawn)], [2.5, 97.5])
        return {"mean": float(above.mean() / below.mean()), "low": float(low), "high": float(high), "n": self.count}

    def mean(self, values: Floats) -> Score | None:
        return self.ratio(values, np.ones_like(values))

    def gap(self, method: str, n: int) -> Score | None:
        """(U − U_nothing) / (U_oracle − U_nothing), of mean utilities (`lessons.regret.gap_closed`)."""
        least = self.of("utility", "nothing", n)
        return self.ratio(self.of("utility", method, n) - least, self.of("utility", "oracle", n) - least)

    def false(self, method: str, n: int) -> Score | None:
        """The share of lives of pure chance in which a lesson was drawn; n are these lives, and None without any."""
        chance = self.of("chance", "", n)
        found = self.ratio(self.of("false", method, n), chance)
        return found and {**found, "n": int(chance.sum())}

    def no_lesson(self, n: int) -> Score | None:
        """What the posterior gives to no lesson in lives of pure chance."""
        chance = self.of("chance", "", n)
        return self.ratio(self.of("no lesson", "", n) * chance, chance)

    def best_fixed(self, n: int) -> str | None:
        """The fixed augmentation with the least mean regret, chosen on these very lives: the hardest to beat."""
        return min(self.fixed, key=lambda m: float(self.of("regret", m, n).mean()), default=None)


def gather(measures: Sequence[Measure]) -> Lives:
    """The measures of lives as arrays. Raises UserError where one is missing."""
    row = {float(n): i for i, n in enumerate(AFTER)}
    mine = [m for m in measures if m["claim"] == LIVES and m["x"] in row]
    lives = sorted({m["seed"] or 0 for m in mine})
    column = {life: i for i, life in enumerate(lives)}
    values: dict[tuple[str, str], Floats] = {}
    for m in mine:
        table = values.setdefault((m["series"], m["label"]), np.full((len(AFTER), len(lives)), np.nan))
        table[row[m["x"] or 0], column[m["seed"] or 0]] = m["value"]
    methods = {method for _, method in values if method}
    due = [*itertools.product(KEPT, methods), *((name, "") for name in OWN)]
    if lacking := [k for k in due if k not in values or np.isnan(values[k]).any()]:
        raise UserError(f"{' of '.join(filter(None, lacking[0]))} was not measured in every life; run the study again")
    drawn = np.random.default_rng(0).multinomial(len(lives), [1 / len(lives)] * len(lives), size=RESAMPLES)
    return Lives(AFTER, values, drawn / len(lives))


def methods_told(lives: Lives) -> list[dict[str, Any]]:
    """Every method's figures after each number of incidents."""
    told = []
    for method in lives.methods:
        figures = [
            {"n": n, "gap": lives.gap(method, n), "false": lives.false(method, n)}
            | {s: lives.mean(lives.of(s, method, n)) for s in KEPT if s not in ("utility", "false")}
            for n in lives.after
        ]
        told.append({"method": method, "what": METHODS[method], "after": figures})
    return told


def goals(lives: Lives) -> list[dict[str, Any]]:
    """What was to be reached, what was, and whether that is enough."""
    found = []
    gap = lives.gap(SUBJECT, GOAL_AFTER)
    found.append(_goal(f"within {1 - GOAL_GAP:.0%} of the oracle after {GOAL_AFTER} incidents", "gap closed", gap,
                       gap is not None and gap["mean"] >= GOAL_GAP))  # fmt: skip
    if lives.fixed:
        against = [_against_fixed(lives, n) for n in lives.after]
        least = min(against, key=lambda s: s["low"] if s else 0.0)
        found.append(_goal("better than every fixed augmentation, after any number of incidents",
                           "least lead in utility over the best of them", least,
                           all(s is not None and s["low"] > 0 for s in against)))  # fmt: skip
    false = [s for n in lives.after if (s := lives.false(SUBJECT, n))]
    worst = max(false, key=lambda s: s["mean"], default=None)
    rare = worst is not None and worst["mean"] <= GOAL_FALSE
    found.append(_goal(f"at most {GOAL_FALSE:.0%} false lessons, after any number of incidents",
                       "share of lives of pure chance, at worst", worst, rare))  # fmt: skip
    return found


def _goal(goal: str, figure: str, value: Score | None, met: bool) -> dict[str, Any]:
    """met: None where there was nothing to measure it on."""
    return {"goal": goal, "figure": figure, "value": value, "met": met if value else None}


def _against_fixed(lives: Lives, n: int) -> Score | None:
    """How much more utility the subject has than the best fixed augmentation, on the same lives."""
    best = lives.best_fixed(n)
    assert best is not None
    return lives.mean(lives.of("utility", SUBJECT, n) - lives.of("utility", best, n))


def calibrated(measures: Sequence[Measure], after: Sequence[int]) -> list[dict[str, Any]]:
    """For each number of incidents the bins that hold anything, with intervals over blocks of lives, and the
    expected calibration error: the mean of |said − true| by weight."""
    found = []
    for n in after:
        mine = [m for m in measures if m["claim"] == CALIBRATION and m["label"] == str(n)]
        blocks = {b: i for i, b in enumerate(sorted({m["seed"] or 0 for m in mine}))}
        tables = {s: np.zeros((len(blocks), BINS)) for s in ("said", "true", "weight")}
        for m in mine:
            if m["series"] not in tables or (m["x"] or 0) not in range(BINS):
                raise UserError(f"the calibration has {m['series']} at {m['x']}, which this version does not measure")
            tables[m["series"]][blocks[m["seed"] or 0], int(m["x"] or 0)] = m["value"] or 0.0
        weight = tables["weight"]
        drawn = np.random.default_rng(0).multinomial(len(blocks), [1 / len(blocks)] * len(blocks), size=RESAMPLES)
        bins = []
        for i in np.flatnonzero(weight.sum(0)):
            said, true = ((tables[s] * weight)[:, i].sum() / weight[:, i].sum() for s in ("said", "true"))
            below = drawn @ weight[:, i]
            shares = (drawn @ (tables["true"] * weight)[:, i])[below > 0] / below[below > 0]
            low, high = np.percentile(shares, [2.5, 97.5])
            bins.append({"bin": int(i), "said": float(said), "true": float(true), "low": float(low),
                         "high": float(high), "weight": float(weight[:, i].mean())})  # fmt: skip
        error = sum(b["weight"] * abs(b["said"] - b["true"]) for b in bins)
        found.append({"n": n, "error": error, "bins": bins})
    return found


def judged(measures: Sequence[Measure]) -> dict[str, Any] | None:
    """What a judge's opinion was worth: the gap closed after n incidents with it and without it, over the lives in
    which it was asked for; and what it cost. None where nobody was asked."""
    mine = [m for m in measures if m["claim"] == JUDGED]
    if not mine:
        return None

    def mean(method: str, n: float) -> float:
        return float(np.mean([m["value"] for m in mine if (m["series"], m["label"], m["x"]) == ("utility", method, n)]))

    gaps = []
    for n in AFTER:
        nothing, oracle = mean("nothing", n), mean("oracle", n)
        closed = {m: (mean(m, n) - nothing) / (oracle - nothing) if oracle != nothing else None
                  for m in ("judged", SUBJECT)}  # fmt: skip
        gaps.append({"n": n, "with": closed["judged"], "without": closed[SUBJECT]})
    return {
        "lives": len({m["seed"] for m in mine if m["series"] == "utility"}),
        "gaps": gaps,
        "cost": {m["label"]: m["value"] for m in mine if m["series"] == "cost"},
    }
