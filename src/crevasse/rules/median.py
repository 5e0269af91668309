"""The entrywise median of microbatch gradients."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.agreement import Agreement
from crevasse.rules.base import State, Step
from crevasse.rules.layout import Layout
from crevasse.rules.transform import Transform


def median(gradients: Tensor) -> Tensor:
    """Of each entry the median; of an even number, the mean of the two in the middle.

    gradients (microbatch, parameter) -> (parameter,)
    """
    k = len(gradients)
    rows: list[Tensor] = list(gradients)
    if k <= 16:
        # Odd-even transposition: a few passes over whole vectors, ten to twenty times as fast as sorting columns.
        for turn in range(k):
            for i in range(turn % 2, k - 1, 2):
                rows[i], rows[i + 1] = torch.minimum(rows[i], rows[i + 1]), torch.maximum(rows[i], rows[i + 1])
    else:
        rows = list(gradients.sort(0).values)
    return rows[k // 2] if k % 2 else (rows[k // 2 - 1] + rows[k // 2]) / 2


@dataclass(frozen=True)
class Median(Agreement):
    """The base rule on the entrywise median of k microbatch gradients.

    With k = 3 the M3 of Zielinski, Krishnan and Chatterjee 2020, "Weak and strong gradient directions": what one
    microbatch alone pulls at never passes, what two share does. (Their RM3, the rolling median, is `rm3`.) Of an even k
    the mean of the two in the middle, so that the median of −g is minus that of g. Fewer than k/2 microbatches,
    whatever they hold, cannot move it out of the range of the others.

    Costs one forward and one backward pass over the batch, in k parts, memory k vectors. Not where few examples carry
    the signal, such as rare tokens: a gradient that most microbatches lack has a median of about zero.
    """

    name: ClassVar[str] = "median"

    k: int = 3  # microbatches

    def combine(self, gradients: Tensor, step: Step) -> tuple[Tensor, float]:
        return median(gradients), 1.0


@dataclass(frozen=True)
class Rm3(Transform):
    """The base rule on the entrywise median of the gradients of this step and the two before.

    The rolling median of Zielinski, Krishnan and Chatterjee 2020: as `median`, with batches in time for microbatches
    at once. The first two steps take their own gradient. Costs two vectors of memory beyond its base, and no pass. Not
    with a high rate: the three gradients are then of different places.
    """

    name: ClassVar[str] = "rm3"

    def remember(self, weights: Tensor, layout: Layout) -> State:
        return {
            "before": weights.new_zeros(weights.shape),
            "earlier": weights.new_zeros(weights.shape),
            "seen": torch.zeros((), dtype=torch.long, device=weights.device),
        }

    def before(self, gradient: Tensor, weights: Tensor, own: State, step: Step) -> Tensor:
        a, b = own["earlier"], own["before"]
        middle = torch.minimum(torch.maximum(torch.minimum(a, b), gradient), torch.maximum(a, b))
        own["earlier"], own["before"] = b, a.copy_(gradient)
        return middle if int(own["seen"].add_(1)) > 2 else gradient
