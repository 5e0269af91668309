"""Weights that are rounded now and then, and trained on."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crevasse.rules.base import Step
from crevasse.rules.transform import Transform
from crevasse.spec import require


def rounded(matrix: Tensor, bits: int) -> Tensor:
    """Each row to the nearest of the 2^bits − 1 multiples of absmax/(2^(bits−1) − 1). (row, column), not in place"""
    unit = matrix.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    return torch.where(unit > 0, (matrix / unit).round() * unit, matrix)


@dataclass(frozen=True)
class Quantise(Transform):
    """Every so many steps each row of a matrix is rounded to so many bits; until the next time it is trained on.

    Quantise and repair: what a memory keeps in its last digits is lost, what survives rounding stays. The
    levels are uniform and symmetric, in units of the largest |w| of the row (as in Jacob et al. 2018, without an
    offset); that training repairs what a hard cut took is dense-sparse-dense training's (Han et al. 2017). Biases and
    norms are left, and so is the base's own state. 32 bits are the base rule.

    Costs the passes of its base. Not for a last rounding: what a trial ends with has been repaired since, unless its
    number of steps is start plus a multiple of `every`. In steps of rate zero nothing is rounded.
    """

    name: ClassVar[str] = "quantise"

    bits: int = 4  # 2: −1, 0, 1 of the largest
    every: int = 100  # steps from one rounding to the next
    start: int = 0  # steps before the first period
    per: Literal["row", "part"] = "row"  # what shares one largest weight

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.bits <= 32, f"bits of {self.name} must lie between 2 and 32, not {self.bits}")
        require(self.every >= 1, f"every of {self.name} must be at least 1, not {self.every}")
        require(self.start >= 0, f"start of {self.name} must not be negative, not {self.start}")

    def after(self, moved: Tensor, weights: Tensor, own: dict[str, Tensor], step: Step) -> Tensor:
        made = step.number + 1 - self.start
        if made <= 0 or made % self.every or self.bits == 32 or step.scale == 0:
            return moved
        for part in step.layout.parts:
            if part.kind != "vector":
                matrix = part.matrix(moved) if self.per == "row" else part.of(moved).view(1, -1)
                matrix.copy_(rounded(matrix, self.bits))
        return moved
