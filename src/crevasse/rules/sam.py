"""Gradients of the worst point near by: sharpness-aware minimisation."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step, Update, inner, joined, own
from crevasse.rules.oracle import Asking, Oracle
from crevasse.rules.transform import Around
from crevasse.spec import require

#: Added to a length that is divided by.
TINY = 1e-12


@dataclass(frozen=True)
class Sam(Around):
    """The base rule on ∇L(w + e), e = rho·g/‖g‖ with g = ∇L(w) (Foret et al. 2021).

    Costs two forward and two backward passes over the batch. Not with a rho of the size of the weights: the
    gradient there says little about here. The batch is one, where the paper's result owes part of its gain to a point
    for each small part of it (m-sharpness).
    """

    name: ClassVar[str] = "sam"

    rho: float = 0.05  # how far away, in units of the weights

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.rho < 1e6, f"rho of {self.name} must be a number from 0 up, not {self.rho}")

    def ascent(self, gradient: Tensor, weights: Tensor) -> Tensor:
        """From the weights to the worst point near by, to first order. (parameter,) each"""
        size: Tensor = torch.linalg.vector_norm(gradient)
        return gradient * (self.rho / (size + TINY))

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        loss, gradient = yield from oracle.gradient()
        _, gradient = yield from oracle.gradient(at=weights + self.ascent(gradient, weights))
        moved, base = self.base.apply(gradient, weights, inner(state), step)
        return Update(moved, joined(own(state), base), loss)


@dataclass(frozen=True)
class Asam(Sam):
    """`sam` with e = rho·T²g/‖Tg‖, T = |w| + eta in each entry: near by is relative to each weight (Kwon et al. 2021).

    So it does not change with a rescaling of the weights that leaves the function as it is. T is the same for biases
    and norms, as in the paper's formula; its code gives them T = 1.

    Costs two forward and two backward passes over the batch. Not where most weights are near zero, after `l1` say: they
    are hardly looked around at all.
    """

    name: ClassVar[str] = "asam"

    rho: float = 0.5  # how far away, in units of each weight
    eta: float = 0.01  # so that a weight of zero is looked around at as well

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.eta < 1e6, f"eta of {self.name} must be a number from 0 up, not {self.eta}")

    def ascent(self, gradient: Tensor, weights: Tensor) -> Tensor:
        reach = weights.abs() + self.eta
        return reach * super().ascent(gradient * reach, weights)
