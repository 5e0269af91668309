"""Gradient agreement filtering: only what microbatches agree on moves the weights."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.agreement import Agreement
from crevasse.rules.base import Step
from crevasse.spec import require


def agreeing(gradients: Tensor, threshold: float) -> Tensor:
    """Which microbatches agree: cosine distance to the mean of the others at most `threshold`.

    gradients (microbatch, parameter) -> (microbatch,) of bool. It does not depend on their order.
    """
    gram = gradients @ gradients.T
    square = gram.diagonal()
    with_others = gram.sum(1) - square
    others = (gram.sum() - 2 * gram.sum(1) + square).clamp(min=0)
    size = square.sqrt() * others.sqrt()
    cosine = torch.where(size > 0, with_others / size, torch.zeros_like(size))
    return 1 - cosine <= threshold


@dataclass(frozen=True)
class Gaf(Agreement):
    """The base rule on the mean of the microbatch gradients that agree; no step where fewer than two do.

    After Chaubard et al. 2024, "Beyond gradient averaging in parallel optimization". For k = 2 the same as
    published; for more, a microbatch is held against the mean of the others instead of against a running
    mean, so that the order of the microbatches makes no difference and the agreed gradient is a true mean.

    Costs one forward and one backward pass over the batch, in k parts, and k vectors of memory. Not for small
    microbatches late in training: their gradients are nearly orthogonal (cosine distance about 1), and at the
    published threshold of 0.97 every step may be filtered out; the trial then says so.
    """

    name: ClassVar[str] = "gaf"

    threshold: float = 0.97  # largest cosine distance at which a microbatch agrees with the others

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.threshold <= 2, f"threshold of gaf is a cosine distance, 0 to 2, not {self.threshold}")

    def combine(self, gradients: Tensor, step: Step) -> tuple[Tensor, float]:
        agree = agreeing(gradients, self.threshold)
        count = int(agree.sum())
        if count < 2:
            return gradients[0], 0.0
        # A product with weights of 0 and 1/count: to pick the rows out first would copy them all.
        return (agree.to(gradients.dtype) / count) @ gradients, count / len(gradients)


@dataclass(frozen=True)
class GafSign(Agreement):
    """The base rule on the mean gradient, kept only where all microbatches agree in sign (and within epsilon).

    The filter of the thesis: an entry is kept where two half-batches have the same sign and differ by less
    than epsilon, and is zero elsewhere. Costs the same passes as `gaf`. Not with few parameters shared by all
    examples: there nearly every sign agrees once in a while and nothing is filtered.
    """

    name: ClassVar[str] = "gaf-sign"

    epsilon: float | None = None  # entries must differ by less than this; none: the sign alone decides

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.epsilon is None or self.epsilon > 0,
            f"epsilon of gaf-sign must be positive, not {self.epsilon}",
        )

    def combine(self, gradients: Tensor, step: Step) -> tuple[Tensor, float]:
        sign = gradients.sign()
        keep = (sign == sign[0]).all(0) & (sign[0] != 0)
        if self.epsilon is not None:
            keep &= gradients.amax(0) - gradients.amin(0) < self.epsilon
        return gradients.mean(0) * keep, float(keep.float().mean())
