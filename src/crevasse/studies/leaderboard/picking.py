"""Which of its settings stands for a rule: picked by validation, on seeds that are not used again."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: Held-out exact match at which the rule counts as found.
FOUND = 0.95


def first_reached(row: Mapping[str, Any], level: float = FOUND) -> int | None:
    """The reading at which validation was first so good; None: never."""
    reached = np.flatnonzero(np.asarray(row["curve_held_out_exact"], dtype=float) >= level)
    return int(reached[0]) if len(reached) else None


def passes_to(row: Mapping[str, Any]) -> float:
    """Passes to `FOUND` on validation; infinite: never."""
    at = first_reached(row)
    return math.inf if at is None else float(row["curve_passes"][at])


def last_exact(row: Mapping[str, Any]) -> float:
    """Validation at the end; 0 for a trial that diverged."""
    values = np.asarray(row["curve_held_out_exact"], dtype=float)
    values = values[~np.isnan(values)]
    return float(values[-1]) if len(values) and row["status"] == "done" else 0.0


def found_at(row: Mapping[str, Any]) -> int | None:
    """The first reading so good, of a trial that was so good at its end too; None: it did not find the rule."""
    return first_reached(row) if last_exact(row) >= FOUND else None


def pick(tried: Sequence[Mapping[str, Any]]) -> int:
    """Which of several trials did best: fewest passes to `FOUND`, else the best validation at the end.

    A trial that reached it and lost it again counts by its end. Of equals, the lowest validation loss at the end, then
    the first.
    """

    def rank(i: int) -> tuple[float, float, float, int]:
        row = tried[i]
        losses = [v for v in row["curve_held_out"] if math.isfinite(v)]
        at = found_at(row)
        kept = math.inf if at is None else float(row["curve_passes"][at])
        loss = losses[-1] if losses and row["status"] == "done" else math.inf
        return kept, -last_exact(row), loss, i

    return min(range(len(tried)), key=rank)
