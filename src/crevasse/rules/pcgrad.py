"""Microbatch gradients, each without what works against another."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.agreement import Agreement
from crevasse.rules.base import Step


@dataclass(frozen=True)
class PcGrad(Agreement):
    """The base rule on the mean of pᵢ: gᵢ after p ← p − (p·gⱼ/‖gⱼ‖²)·gⱼ for each j, in random order, where p·gⱼ < 0.

    Gradient surgery (Yu et al. 2020), with microbatches in the place of tasks, and the mean in the place of their sum:
    without a conflict it is then the plain gradient. Of k = 2 no projection depends on the order, and the result
    conflicts with neither; of more it may again conflict with some (`upgrad` does not).

    Costs one forward and one backward pass over the batch, in k parts, and memory k vectors; the projections are done
    on their k×k products. Not for small microbatches late in training: nearly orthogonal noise conflicts half of the
    time, and what is cut away is noise in the direction of noise.
    """

    name: ClassVar[str] = "pcgrad"

    def combine(self, gradients: Tensor, step: Step) -> tuple[Tensor, float]:
        k = len(gradients)
        products = (gradients @ gradients.T).double().cpu()
        generator = step.generator("pcgrad")
        shares = torch.eye(k, dtype=products.dtype)  # of each projected gradient, what it holds of which
        for i, mine in enumerate(shares):
            for j in torch.randperm(k, generator=generator).tolist():
                along = products[j] @ mine
                if j != i and along < 0 < products[j, j]:
                    mine[j] -= along / products[j, j]
        return shares.mean(0).to(gradients) @ gradients, 1.0
