"""Intervals over seeds, and comparisons of rules on the same seeds."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from crevasse.spec import require

Floats = NDArray[np.float64]

#: Resamples of a bootstrap, and sign flips, where not all of them can be listed.
RESAMPLES = 10_000
#: Pairs up to which all sign flips are listed.
LISTED = 16
#: Digits after the point of a mean and its interval.
DIGITS = 12


class Score(TypedDict):
    """A mean over seeds, or another middle of them, with its interval."""

    mean: float
    low: float
    high: float
    n: int


class Paired(TypedDict):
    """Two rules on the same seeds."""

    difference: float  # mean of a − b
    p: float  # of no difference, two-sided
    n: int  # pairs


def score(values: Sequence[float | None], level: float = 0.95) -> Score | None:
    """Mean and percentile bootstrap interval (Efron 1979) of some seeds' values; None among them is left
    out, and None comes back where nothing is left.

    With up to six values all resamples are listed, so nothing is drawn. Few seeds give coarse intervals: with
    three, the 95% interval reaches from the smallest value to the largest.
    """
    return _score(values, lambda x: math.fsum(x) / len(x), lambda x: x.mean(-1), level)


def iqm(values: Sequence[float]) -> float:
    """Interquartile mean, the 25% trimmed mean (Agarwal et al. 2021, Deep RL at the edge of the statistical precipice).

    Each of the n sorted values is a mass of 1/n; the lowest and the highest quarter of the mass are left out, and
    what is left is averaged. So exactly half of the mass counts: where n does not divide by 4, the two values that
    a quarter cuts through count with the part that is left of them. Raises UserError if there are no values.
    """
    require(len(values) > 0, "an interquartile mean needs at least one value")
    return float(_iqm(np.asarray(values, dtype=np.float64)))


def iqm_score(values: Sequence[float | None], level: float = 0.95) -> Score | None:
    """`score` with the interquartile mean in the place of the mean."""
    return _score(values, lambda x: float(_iqm(x)), _iqm, level)


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """Compare two rules by their values on the same seeds, in the same order: the mean difference a − b and the p-value
    of the sign-flip permutation test (Fisher 1935), two-sided.

    p is the share of all ways to swap the two rules within pairs whose mean difference is at least as far from 0. Up
    to 16 pairs all 2^n are listed and p is exact; beyond, 10,000 are drawn, with the one that was seen among them, so
    that p is never 0 (Phipson, Smyth 2010). With n pairs it cannot be less than 2/2^n: with 5 seeds no
    difference, however large, has a p below 2/32 = .0625; with 6 it can be .03125. Raises UserError for sequences of
    different lengths, without any value or with one that is not finite.
    """
    require(len(a) == len(b), f"values on the same seeds come in pairs, not {len(a)} and {len(b)}")
    require(len(a) > 0, "a comparison needs at least one pair")
    d = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    require(bool(np.isfinite(d).all()), "values that are compared must be finite numbers")
    n = len(d)
    if n <= LISTED:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
    else:
        signs = np.random.default_rng(0).choice((1.0, -1.0), (RESAMPLES, n))
        signs[0] = 1.0  # what was seen
    # Sums that are equal on paper differ by rounding.
    reached = np.abs(signs @ d) >= abs(math.fsum(d)) - 1e-12 * np.abs(d).sum()
    return {"difference": math.fsum(d) / n, "p": float(reached.mean()), "n": n}


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for how many there are, in the given order (Holm 1979). Where all differences at or below α are
    called real, the chance that one or more of them is not is at most α.

    The i-th smallest of m is multiplied by m − i + 1; none is less than one before it, and none more than 1.
    Raises UserError for what is not between 0 and 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    require(bool(((p >= 0) & (p <= 1)).all()), f"p-values lie between 0 and 1, not {[*p_values]}")
    order = np.argsort(p)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return [float(v) for v in adjusted]


def _score(
    values: Sequence[float | None],
    middle: Callable[[Floats], float],
    resampled: Callable[[Floats], Floats],
    level: float,
) -> Score | None:
    """resampled: the same as `middle`, over the last axis"""
    x = np.asarray([v for v in values if v is not None], dtype=np.float64)
    if not len(x):
        return None
    found = resampled(_resamples(x))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2], method="inverted_cdf")
    # Rounding errors are those of a processor: without their digits a table says the same on every machine.
    mean, low, high = (round(float(v), DIGITS) for v in (middle(x), low, high))
    # Resampling adds errors of its own; the interval never excludes the middle for that reason.
    return {"mean": mean, "low": min(low, mean), "high": max(high, mean), "n": len(x)}


def _resamples(x: Floats) -> Floats:
    """(resample, value)"""
    n = len(x)
    if n <= 6:
        rows = np.array(list(itertools.product(range(n), repeat=n)))
    else:
        rows = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    found: Floats = x[rows]
    return found


def _iqm(x: Floats) -> Floats:
    """Over the last axis. (…, value) -> (…)"""
    n = x.shape[-1]
    start = np.arange(n)
    weights = np.clip(np.minimum(start + 1, 3 * n / 4) - np.maximum(start, n / 4), 0, None) / (n / 2)
    middle: Floats = np.sort(x, axis=-1) @ weights
    return middle
