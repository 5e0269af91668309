"""C8: an update that lowers training loss more than held-out loss follows memory."""

import json
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from crevasse.probes.lockstep import progress
from crevasse.studies.base import Row
from crevasse.studies.claims.base import Claim, Decision, Evidence, Ruling, effect, share

#: The early part of training ends where training loss has fallen by so much of the way from the uniform guess to zero.
EARLY = 0.25
FOUND = 0.9
RESAMPLES = 1000
#: Where the first reading beyond EARLY lies above this, it says nothing about the early part.
LATE = 0.5
#: Tasks and formats that need both outcomes.
STRATA = 3


class StepRatio(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C8"
    title: ClassVar[str] = "The first steps tell"
    quote: ClassVar[str] = (
        "If the train loss declines MORE than the val loss, then the gradient direction was following the path "
        "toward memorization vs. generalization."
    )
    hypothesis: ClassVar[str] = (
        "Among trials of one task in one format, the ratio in which held-out loss has fallen when training loss has "
        "come a quarter of its way tells which answer held-out problems in the end."
    )
    experiment: ClassVar[str] = (
        "All trials of this study with true labels and a random split that came so far, each once: the ratio then, "
        "against whether nine of ten held-out answers are right at the end."
    )
    rule: ClassVar[str] = (
        "By the area under the ROC curve: the chance that of two trials of one task and format, one that found the "
        "rule and one that did not, the former had the higher ratio; with a bootstrap over configs. Supported if it "
        "is .8 or more and its interval above .65, refuted if its interval lies below .65, half right if it lies "
        "above .5; else, and with fewer than three tasks and formats that have both outcomes, undecided."
    )
    change: ClassVar[str] = "Trials in which the rule comes late, after memory (grokking), count against it."

    def decide(self, evidence: Evidence) -> Ruling:
        once = {r["trial"]: r for r in evidence.every}.values()
        points = [
            ((r["task"], r["format"]), _config(r), ratio, r["random"] >= FOUND)
            for r in once if (ratio := early_ratio(r)) is not None and r["random"] is not None
        ]  # fmt: skip
        ratios = np.array([p[2] for p in points], dtype=float)
        found = np.array([p[3] for p in points], dtype=bool)
        where = np.array([" · ".join(p[0]) for p in points])
        both = [w for w in dict.fromkeys(where) if 0 < found[where == w].sum() < (where == w).sum()]
        if len(both) < STRATA:
            few = f"only {len(both)} tasks and formats have trials that found the rule and trials that did not"
            return Ruling("undecided", few, [], [])
        area = stratified(ratios, found, where)
        low, high = _interval([p[1] for p in points], ratios, found, where)
        decision: Decision = "undecided"
        if area >= 0.8 and low > 0.65:
            decision = "supported"
        elif high < 0.65:
            decision = "refuted"
        elif low > 0.5:
            decision = "half right"
        late = int((found & (ratios < 0.5)).sum())
        key = (
            "the early ratio ranks a trial that finds the rule above one of the same task and format that does not in "
            f"{share(area)} of pairs [{share(low)}–{share(high)}], over {len(both)} of these; {late} of "
            f"{int(found.sum())} trials that found it began with a ratio below one half"
        )
        series = [
            {"name": name, "x": ratios[which].tolist(), "y": [str(w) for w in where[which]],
             "marks": True}
            for name, which in (("found the rule", found), ("did not", ~found))
        ]  # fmt: skip
        return Ruling(
            decision,
            key,
            [{"name": "area under the ROC curve, within a task and format", "value": area, "low": low, "high": high,
              "n": len(points)},
             effect("the same over all pairs", area_under(ratios, found)),
             effect("mean ratio where the rule was found", float(ratios[found].mean())),
             effect("mean ratio where it was not", float(ratios[~found].mean()))],
            [{"kind": "dots", "caption": "Fall of held-out loss over fall of training loss, when the latter has come "
              "a quarter of its way; a dot a trial", "x": "early ratio", "y": "", "series": series}],  # type: ignore[typeddict-item]
        )  # fmt: skip


def early_ratio(row: Row) -> float | None:
    """Held-out progress over training progress where training first comes EARLY of its way, by a straight line between
    the readings on either side.

    None where it never did, where the reading after is too late to tell, for shuffled labels, and without a curve.
    """
    if row["labels"] != "true" or not row["curve_train"]:
        return None
    s = progress(np.array(row["curve_train"], dtype=float), row["uniform_loss"])
    h = progress(np.array(row["curve_held_out"], dtype=float), row["uniform_loss"])
    there = np.flatnonzero((s >= EARLY) & np.isfinite(h))
    if not len(there) or not there[0] or s[there[0]] > LATE:
        return None
    after, before = there[0], there[0] - 1
    part = (EARLY - s[before]) / (s[after] - s[before])
    return float((h[before] + part * (h[after] - h[before])) / EARLY)


def area_under(values: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Chance that a positive value lies above another one, ties counting half (Mann, Whitney 1947)."""
    above = values[positive][:, None] - values[~positive]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def stratified(values: NDArray[Any], positive: NDArray[np.bool_], where: NDArray[np.str_]) -> float:
    """The area over pairs within a stratum alone; not a number where there are none."""
    total = pairs = 0.0
    for w in dict.fromkeys(where):
        of = where == w
        count = float(positive[of].sum() * (~positive[of]).sum())
        if count:
            total, pairs = total + count * area_under(values[of], positive[of]), pairs + count
    return total / pairs if pairs else math.nan


def _config(row: Row) -> str:
    """What trials that differ in their seed have in common."""
    return json.dumps({k: v for k, v in json.loads(row["config"]).items() if k != "seed"}, sort_keys=True)


def _interval(
    configs: Sequence[str], values: NDArray[Any], positive: NDArray[np.bool_], where: NDArray[np.str_]
) -> tuple[float, float]:
    """95%, by drawing whole configs anew: seeds of one are alike."""
    names = np.array(configs)
    groups = [np.flatnonzero(names == n) for n in dict.fromkeys(configs)]
    generator = np.random.default_rng(0)
    areas = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([groups[i] for i in generator.integers(0, len(groups), len(groups))])
        areas.append(stratified(values[rows], positive[rows], where[rows]))
    low, high = np.nanquantile(areas, [0.025, 0.975])
    return float(low), float(high)
