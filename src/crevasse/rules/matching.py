"""Gradient matching: descend, and let the training gradient point where that of the steer set does."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step, Update, inner, joined, own
from crevasse.rules.oracle import Asking, Oracle
from crevasse.rules.transform import Around
from crevasse.spec import require


@dataclass(frozen=True)
class Matching(Around):
    """The base rule on the gradient of L − strength·⟨g, g_steer⟩, which is g − strength·(H·g_steer + H_steer·g).

    The inner product of gradients of Shi et al. 2021, "Gradient matching for domain generalization" (Fish), and
    Koyama, Yamaguchi 2021, here between the batch and the steer set, and by its own gradient instead of the
    published first-order walk. A Hessian times a vector v is |v|·(∇L(w + ε·v/|v|) − ∇L(w − ε·v/|v|))/2ε.

    Costs six forward and six backward passes: three over the batch, three over the steer set's. Not with much
    strength at the beginning: an inner product is also raised by longer gradients, that is by worse weights.
    """

    name: ClassVar[str] = "matching"

    strength: float = 0.1  # weight of the inner product; 0: the plain gradient
    epsilon: float = 1e-2  # how far it looks to either side, as a length in the space of weights

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.strength < 1e6, f"strength of {self.name} must be a number from 0 up, not {self.strength}")
        require(0 < self.epsilon < 1e6, f"epsilon of {self.name} must be positive, not {self.epsilon}")

    @property
    def steers(self) -> bool:
        return True

    def bent(self, oracle: Oracle, weights: Tensor, direction: Tensor, steer: bool) -> Asking[Tensor]:
        """The Hessian of the batch's loss, or of the steer set's, times a direction. (parameter,)"""
        size: Tensor = torch.linalg.vector_norm(direction)
        aside = direction * (self.epsilon / size.clamp(min=1e-30))
        _, ahead = yield from oracle.gradient(weights + aside, steer)
        _, behind = yield from oracle.gradient(weights - aside, steer)
        return (ahead - behind) * (size / (2 * self.epsilon))

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        loss, gradient = yield from oracle.gradient()
        _, wanted = yield from oracle.gradient(steer=True)
        bend = yield from self.bent(oracle, weights, wanted, steer=False)
        bend = bend + (yield from self.bent(oracle, weights, gradient, steer=True))
        moved, base = self.base.apply(gradient.sub(bend, alpha=self.strength), weights, inner(state), step)
        return Update(moved, joined(own(state), base), loss)
