"""Gradients at weights that were shaken."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step, Update, inner, joined, own
from crevasse.rules.oracle import Asking, Oracle
from crevasse.rules.transform import Around
from crevasse.spec import require


@dataclass(frozen=True)
class WeightNoise(Around):
    """The base rule on ∇L(w + sigma·ξ), ξ standard normal and drawn anew each step (An 1996; Graves 2011).

    So it descends on the loss smoothed by a normal curve of that width. With `relative` the noise is sigma·|w|·ξ.
    The noise is not kept: w itself moves. Sigma 0 is the base rule. The loss in the ledger is that at w + noise.

    Costs one forward and one backward pass over the batch, and one normal draw for each weight. Not with one absolute
    sigma for layers whose weights differ much in size: the small ones drown; `relative` scales with them.
    """

    name: ClassVar[str] = "weight-noise"

    sigma: float = 0.01  # standard deviation
    relative: bool = False  # in units of each weight's size

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.sigma < 1e6, f"sigma of {self.name} must be a number from 0 up, not {self.sigma}")

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        noise = torch.randn(weights.shape, generator=step.generator("weight-noise"), dtype=weights.dtype)
        noise = noise.to(weights.device)
        if self.relative:
            noise *= weights.abs()
        loss, gradient = yield from oracle.gradient(at=weights.add(noise, alpha=self.sigma))
        moved, base = self.base.apply(gradient, weights, inner(state), step)
        return Update(moved, joined(own(state), base), loss)
