"""Gradients shrunk where microbatches differ more than they share."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crevasse.rules.agreement import Agreement
from crevasse.rules.base import Step
from crevasse.spec import require


@dataclass(frozen=True)
class Snr(Agreement):
    """The base rule on ḡ·max(0, 1 − strength·N/S), in each row of a matrix (or in each entry) by itself.

    S = Σ ḡ² over the row, N = Σ (gᵢ − ḡ)² / (k(k−1)) over row and microbatches: the estimated variance of ḡ. At
    strength 1 it is the positive part of James and Stein 1961 (Baranchik 1964), with an estimated variance and with N
    for (1 − 2/p)·N; as the mean of S is that of signal plus N, 1 − N/S is also Wiener's factor, signal over signal plus
    noise. Strength 0 is the base rule.

    Costs one forward and one backward pass over the batch, in k parts, memory k vectors and one more set of k for a
    moment. Not with k of 2 or 3 in single entries: the variance is then itself mostly noise. A base that
    divides by the gradient's size, as adamw does, undoes a shrinkage that lasts; what remains is between the steps.
    """

    name: ClassVar[str] = "snr"

    k: int = 8  # microbatches
    strength: float = 1.0  # multiplies the noise
    per: Literal["row", "entry"] = "row"  # what is shrunk by one factor; a bias or norm is one row

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.strength < 1e6, f"strength of {self.name} must be a number from 0 up, not {self.strength}")

    def combine(self, gradients: Tensor, step: Step) -> tuple[Tensor, float]:
        k = len(gradients)
        mean = gradients.mean(0)
        noise = (gradients - mean).square_().sum(0) / (k * (k - 1))
        signal = mean.square()
        if self.per == "row":
            noise, signal = step.layout.row_sums(noise), step.layout.row_sums(signal)
        # Where the mean is zero there is nothing to shrink.
        ratio = torch.where(signal > 0, noise / signal, 0.0)
        factor = (1 - self.strength * ratio).clamp_(min=0)
        if self.per == "row":
            factor = step.layout.spread(factor)
        return mean * factor, float(factor.mean())
