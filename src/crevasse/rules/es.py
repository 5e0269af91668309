"""Evolution strategies: the slope from losses at random places around."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step, Update, inner, joined, own
from crevasse.rules.layout import Layout
from crevasse.rules.oracle import Asking, Oracle
from crevasse.rules.transform import Around
from crevasse.spec import require


def perturbation(layout: Layout, rank: int | None, generator: torch.Generator) -> Tensor:
    """Noise of mean 0 and variance 1, its entries uncorrelated; of that rank in each matrix. (parameter,)"""
    pieces = []
    for part in layout.parts:
        if rank is None or part.kind == "vector":
            pieces.append(torch.randn(part.size, generator=generator))
        else:
            left = torch.randn(part.rows, rank, generator=generator)
            right = torch.randn(part.size // part.rows, rank, generator=generator)
            pieces.append((left @ right.T / rank**0.5).flatten())
    return torch.cat(pieces)


@dataclass(frozen=True)
class Es(Around):
    """The base rule on Σ (L(w + σE) − L(w − σE))/(2σ·pairs)·E over random E: no backward pass.

    Evolution strategies with antithetic pairs (Salimans et al. 2017). In each matrix E = A·Bᵀ/√rank with Gaussian
    A and B (EGGROLL; Sarkar et al. 2025, "Evolution strategies at the hyperscale"), which is noise of variance 1 all
    the same, so the estimate is unbiased where the loss is linear. The losses are taken as they are, without a ranking.
    The loss that is seen is the mean of all 2·pairs, slightly above that at the weights themselves.

    Costs 2·pairs forward passes over the batch and no backward pass; one vector of memory. Not where there is a
    gradient: of n weights the estimate sees `pairs` directions, its cosine with the gradient is about √(pairs/n).
    """

    name: ClassVar[str] = "es"

    pairs: int = 8  # antithetic pairs
    sigma: float = 0.01  # size of the noise at each weight
    rank: int | None = 1  # of the noise in each matrix; none: full

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.pairs <= 1_000_000, f"pairs of {self.name} must be at least one, not {self.pairs}")
        require(0 < self.sigma < 1e6, f"sigma of {self.name} must be positive, not {self.sigma}")
        require(self.rank is None or self.rank >= 1, f"rank of {self.name} must be at least one, not {self.rank}")

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        generator = step.generator("evolution")
        estimate, seen = torch.zeros_like(weights), weights.new_zeros(())
        for _ in range(self.pairs):
            noise = perturbation(step.layout, self.rank, generator).to(weights)
            ahead = yield from oracle.loss(weights.add(noise, alpha=self.sigma))
            behind = yield from oracle.loss(weights.sub(noise, alpha=self.sigma))
            # A float and no tensor: the losses may be of another precision, or lie elsewhere than the weights.
            estimate.add_(noise, alpha=float(ahead - behind) / (2 * self.sigma * self.pairs))
            seen += float(ahead + behind) / (2 * self.pairs)
        moved, base = self.base.apply(estimate, weights, inner(state), step)
        return Update(moved, joined(own(state), base), seen)
