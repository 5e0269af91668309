"""Egalitarian gradient descent: all directions of a matrix at the same speed."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step
from crevasse.rules.layout import Part
from crevasse.rules.transform import Transform
from crevasse.spec import require


def levelled(matrix: Tensor, strength: float, floor: float) -> Tensor:
    """U·S^(1 − strength)·Vᵀ of a matrix U·S·Vᵀ; singular values below floor times the largest are scaled as if there.

    (row, column) -> the same. Of the smaller Gram matrix in float64: squared, float32 would lose what is small.
    """
    if not matrix.isfinite().all():  # a trial takes no step of a loss that is no number; the decomposition would raise
        return matrix
    exact = matrix.double()
    wide = matrix.shape[0] <= matrix.shape[1]
    values, vectors = torch.linalg.eigh(exact @ exact.T if wide else exact.T @ exact)
    sizes = values.clamp(min=0).sqrt()
    scale = sizes.clamp(min=(sizes[-1] * floor).clamp(min=1e-150)).pow(-strength)
    power = (vectors * scale) @ vectors.T
    changed: Tensor = power @ exact if wide else exact @ power
    return changed.to(matrix.dtype)


@dataclass(frozen=True)
class Egd(Transform):
    """G ← (G·Gᵀ)^(−strength/2)·G of every matrix, embedding and head before the base (Pasand, Dohmatob 2025).

    At strength 1 all singular values of a gradient are one; between, each is raised to the power 1 − strength.
    Vectors stay as they are. Singular values below `floor` times the largest are not blown up further: the published
    code has an absolute floor of 1e-6, this one does not depend on the loss's scale. The published
    modular addition levels the first layer alone, and goes back to plain gradients when *test* accuracy passes .95;
    here all matrices are levelled, and nothing looks at a test.

    Costs an eigendecomposition in float64 of the shorter side of each matrix beyond its base: 20 ms on one core for
    two layers of width 128. Not at the usual rate of a plain sgd: a step then has the spectral norm lr, however small
    the gradient is. Not with a floor below 1e-6, which is rounding.
    """

    name: ClassVar[str] = "egd"

    strength: float = 1.0  # 0: the gradient as it is; 1: all singular values equal
    floor: float = 1e-5  # over the largest singular value

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.strength <= 1, f"strength of egd must lie between 0 and 1, not {self.strength}")
        require(0 < self.floor <= 1, f"floor of egd must lie in (0, 1], not {self.floor}")

    def before(self, gradient: Tensor, weights: Tensor, own: State, step: Step) -> Tensor:
        def change(part: Part, slope: Tensor) -> Tensor:
            return slope if part.kind == "vector" else levelled(part.matrix(gradient), self.strength, self.floor)

        return step.layout.map(change, gradient) if self.strength else gradient
