"""Only entries whose sign most microbatches share move the weights."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.agreement import Agreement
from crevasse.rules.base import Step
from crevasse.spec import require


@dataclass(frozen=True)
class AndMask(Agreement):
    """The base rule on m·ḡ, m = 1 where |mean of sign gᵢ| ≥ threshold and 0 elsewhere, over m's mean in each parameter.

    Parascandolo et al. 2021, "Learning explanations that are hard to vary". The division by the share that is
    kept, in each weight matrix or bias by itself, is their published code's: the gradient's size then does not shrink
    with the mask. A threshold of 0 keeps all and is the base rule, 1 keeps what all k microbatches agree on;
    (2a − k)/k is where a of k have to.

    Costs one forward and one backward pass over the batch, in k parts, memory k vectors. Not with many microbatches and
    a threshold near 1: signs of noise agree once in 2^(k−1), and a signal under the noise is lost as well.
    """

    name: ClassVar[str] = "and-mask"

    k: int = 4  # microbatches
    threshold: float = 0.5  # smallest |mean of signs| of an entry that is kept: tau
    rescale: bool = True  # over the share kept, as published

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.threshold <= 1, f"threshold of {self.name} is a share, 0 to 1, not {self.threshold}")

    def combine(self, gradients: Tensor, step: Step) -> tuple[Tensor, float]:
        # Votes are whole numbers; the millionth is for thresholds such as 0.6 that are rounded themselves.
        votes = gradients.sign().sum(0).abs_()
        mask = (votes >= self.threshold * len(gradients) - 1e-6).to(gradients.dtype)
        gradient = gradients.mean(0).mul_(mask)
        agreed = float(mask.mean())
        if self.rescale and 0 < agreed < 1:
            for part in step.layout.parts:
                kept = part.of(mask).mean()
                part.of(gradient).div_(torch.where(kept > 0, kept, 1.0))
        return gradient, agreed
