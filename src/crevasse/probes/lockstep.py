"""Lockstep: does held-out loss fall as fast as training loss?

s = (L0 − training loss)/L0 and h = (L0 − held-out loss)/L0, both on fixed probe batches, where L0 is the loss of
the uniform guess. The score is (2/s_max²)·∫ h ds over the running maximum of s: 1 where held-out falls exactly
with training, 0 where only memory grows, negative where held-out rises while training falls.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Below this s_max a score reads "did not learn": a model that never moves is trivially in step.
LEARNED = 0.5

Curve = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Lockstep:
    """What two loss curves say together."""

    score: float | None  # None where training loss never fell below the uniform guess
    s_max: float
    memorising: float | None  # share of the fall of training loss bought while held-out loss rose

    @property
    def learned(self) -> bool:
        """Did training loss fall far enough for the score to mean anything?"""
        return self.s_max >= LEARNED


def progress(loss: Curve, uniform: float) -> NDArray[np.float64]:
    """(L0 − loss)/L0 (probe,)"""
    return (uniform - np.asarray(loss, dtype=np.float64)) / uniform


def lockstep(train: Curve, held_out: Curve, uniform: float) -> Lockstep:
    """Score of two loss curves that were read at the same moments. uniform: L0, positive.

    The curve starts at s = 0, h = 0, the uniform guess; the part of the first interval below s = 0 is not
    counted. Raises ValueError for curves of different lengths.
    """
    s, h = progress(train, uniform), progress(held_out, uniform)
    if s.shape != h.shape:
        raise ValueError(f"curves of different lengths: {s.shape} and {h.shape}")
    area, top = 0.0, 0.0
    previous_s, previous_h = 0.0, 0.0
    for now_s, now_h in zip(s, h, strict=True):
        if not (np.isfinite(now_s) and np.isfinite(now_h)):
            break
        if now_s > top:
            # The interval from (previous) to (now) crosses the running maximum at `top`: only what lies above
            # it is new progress. Along the interval h is taken to be linear in s.
            h_top = previous_h + (now_h - previous_h) * (top - previous_s) / (now_s - previous_s)
            area += (now_s - top) * (h_top + now_h) / 2
            top = float(now_s)
        previous_s, previous_h = float(now_s), float(now_h)
    score = float(2 * area / top**2) if top > 0 else None
    return Lockstep(score, top, memorising_share(train, held_out))


def memorising_share(train: Curve, held_out: Curve) -> float | None:
    """Share of the total fall of training loss that came in intervals in which held-out loss rose.

    None where training loss never fell.
    """
    fall = -np.diff(np.asarray(train, dtype=np.float64))
    rise = np.diff(np.asarray(held_out, dtype=np.float64))
    ok = np.isfinite(fall) & np.isfinite(rise)
    fell = ok & (fall > 0)
    total = fall[fell].sum()
    return float(fall[fell & (rise > 0)].sum() / total) if total > 0 else None


def step_ratios(train: Curve, held_out: Curve) -> NDArray[np.float64]:
    """Fall of held-out loss over fall of training loss, interval by interval; NaN where training did not fall.

    The one-step generalisation ratio (Liu et al. 2020), read between neighbouring probes. (interval,)
    """
    fall = -np.diff(np.asarray(train, dtype=np.float64))
    held = -np.diff(np.asarray(held_out, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(fall > 0, held / fall, np.nan)
