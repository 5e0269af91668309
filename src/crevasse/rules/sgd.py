"""Stochastic gradient descent."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from crevasse.rules.base import BaseRule, State, require_rate
from crevasse.spec import require


@dataclass(frozen=True)
class Sgd(BaseRule):
    """w ← w − lr·v with v ← momentum·v + g + decay·w (Robbins, Monro 1951; Polyak 1964; as in torch.optim.SGD).

    Costs one forward and one backward pass a step. Not for nets whose gradients differ much in scale from
    layer to layer: there one rate fits no layer well.
    """

    name: ClassVar[str] = "sgd"

    lr: float = 0.1
    momentum: float = 0.9
    decay: float = 0.0  # added to the gradient: L2 regularisation

    def __post_init__(self) -> None:
        require_rate(self.name, self.lr)
        require(0 <= self.momentum < 1, f"momentum of sgd must lie in [0, 1), not {self.momentum}")
        require(self.decay >= 0, f"decay of sgd must not be negative, not {self.decay}")

    def init(self, weights: Tensor) -> State:
        return {"velocity": weights.new_zeros(weights.shape)} if self.momentum else {}

    def apply(self, gradient: Tensor, weights: Tensor, state: State, scale: float) -> tuple[Tensor, State]:
        step = gradient.add(weights, alpha=self.decay) if self.decay else gradient
        if self.momentum:
            step = state["velocity"].mul_(self.momentum).add_(step)
        return weights.sub(step, alpha=self.lr * scale), state
