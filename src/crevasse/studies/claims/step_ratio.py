"""C8: an update that lowers training loss more than held-out loss follows memory."""

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
RESAMPLES = 2000


class StepRatio(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C8"
    title: ClassVar[str] = "The first steps tell"
    quote: ClassVar[str] = (
        "If the train loss declines MORE than the val loss, then the gradient direction was following the path toward "
        "memorization vs. generalization."
    )
    hypothesis: ClassVar[str] = (
        "The ratio in which held-out loss has fallen when training loss has come a quarter of its way tells which "
        "trials answer held-out problems in the end."
    )
    experiment: ClassVar[str] = (
        "All trials of this study with true labels and a random split that came so far: the ratio then, against "
        "whether nine of ten held-out answers are right at the end."
    )
    rule: ClassVar[str] = (
        "By the area under the ROC curve (the chance that a trial that found the rule had the higher ratio), with a "
        "bootstrap over arms: supported if it is .8 or more and its interval above .65, refuted if the interval holds "
        ".5 or lies below, else half right; undecided with fewer than five trials on either side."
    )
    change: ClassVar[str] = "Trials in which the rule comes late, after memory (grokking), count against it."

    def decide(self, evidence: Evidence) -> Ruling:
        points = [(r["arm"], ratio, r["random"] >= FOUND) for r in evidence.every
                  if (ratio := early_ratio(r)) is not None and r["random"] is not None]  # fmt: skip
        ratios = np.array([p[1] for p in points])
        found = np.array([p[2] for p in points], dtype=bool)
        if min(found.sum(), (~found).sum(), 10**9) < 5:
            few = f"only {int(found.sum())} trials found the rule and {int((~found).sum())} did not"
            return Ruling("undecided", few, [], [])
        area = area_under(ratios, found)
        low, high = _interval([p[0] for p in points], ratios, found)
        decision: Decision = "supported" if area >= 0.8 and low > 0.65 else "refuted" if low <= 0.5 else "half right"
        late = int((found & (ratios < 0.5)).sum())
        key = (
            f"the early ratio ranks a trial that finds the rule above one that does not in {share(area)} of pairs "
            f"[{share(low)}–{share(high)}], over {len(points)} trials; {late} of {int(found.sum())} that found it "
            "began with a ratio below one half"
        )
        series = [
            {"name": name, "x": ratios[which].tolist(), "y": [points[i][0] for i in np.flatnonzero(which)],
             "marks": True}
            for name, which in (("found the rule", found), ("did not", ~found))
        ]  # fmt: skip
        return Ruling(
            decision,
            key,
            [{"name": "area under the ROC curve", "value": area, "low": low, "high": high, "n": len(points)},
             effect("mean ratio where the rule was found", float(ratios[found].mean())),
             effect("mean ratio where it was not", float(ratios[~found].mean()))],
            [{"kind": "dots", "caption": "Fall of held-out loss over fall of training loss, when the latter has come "
              "a quarter of its way; a dot a trial", "x": "early ratio", "y": "", "series": series}],  # type: ignore[typeddict-item]
        )  # fmt: skip


def early_ratio(row: Row) -> float | None:
    """Held-out progress over training progress at the first reading at which training has come EARLY of its way.

    None where it never did, for shuffled labels, and where there is no curve.
    """
    if row["labels"] != "true" or not row["curve_train"]:
        return None
    s = progress(np.array(row["curve_train"], dtype=float), row["uniform_loss"])
    h = progress(np.array(row["curve_held_out"], dtype=float), row["uniform_loss"])
    there = np.flatnonzero((s >= EARLY) & np.isfinite(h))
    return float(h[there[0]] / s[there[0]]) if len(there) else None


def area_under(values: NDArray[Any], positive: NDArray[np.bool_]) -> float:
    """Chance that a positive value lies above another one, ties counting half (Mann, Whitney 1947)."""
    above = values[positive][:, None] - values[~positive]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def _interval(arms: Sequence[str], values: NDArray[Any], positive: NDArray[np.bool_]) -> tuple[float, float]:
    """95%, by drawing whole arms anew: seeds of an arm are alike."""
    names = np.array(arms)
    groups = [np.flatnonzero(names == n) for n in dict.fromkeys(arms)]
    generator = np.random.default_rng(0)
    areas = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([groups[i] for i in generator.integers(0, len(groups), len(groups))])
        if 0 < positive[rows].sum() < len(rows):
            areas.append(area_under(values[rows], positive[rows]))
    low, high = np.quantile(areas, [0.025, 0.975])
    return float(low), float(high)
