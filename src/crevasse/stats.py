"""Intervals over seeds."""

import itertools
import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

#: Resamples of a bootstrap where not all of them can be listed.
RESAMPLES = 10_000


class Score(TypedDict):
    """A mean over seeds with its interval."""

    mean: float
    low: float
    high: float
    n: int


def score(values: Sequence[float | None], level: float = 0.95) -> Score | None:
    """Mean and percentile bootstrap interval (Efron 1979) of some seeds' values; None among them is left
    out, and None comes back where nothing is left.

    With up to six values all resamples are listed, so nothing is drawn. Few seeds give coarse intervals: with
    three, the 95% interval reaches from the smallest value to the largest.
    """
    x = np.asarray([v for v in values if v is not None], dtype=np.float64)
    if not len(x):
        return None
    means = _resampled_means(x)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    # Resampling adds rounding errors of its own; the interval never excludes the mean for that reason.
    mean = math.fsum(x) / len(x)
    return {"mean": mean, "low": min(float(low), mean), "high": max(float(high), mean), "n": len(x)}


def _resampled_means(x: NDArray[np.float64]) -> NDArray[np.float64]:
    n = len(x)
    if n <= 6:
        rows = np.array(list(itertools.product(range(n), repeat=n)))
    else:
        rows = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    means: NDArray[np.float64] = x[rows].mean(1)
    return means
