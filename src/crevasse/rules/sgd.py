"""Stochastic gradient descent, plain and with momentum."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from crevasse.rules.base import BaseRule, State, Step, require_rate
from crevasse.rules.layout import Layout
from crevasse.spec import require


@dataclass(frozen=True)
class Sgd(BaseRule):
    """w ← w − lr·v with v ← momentum·v + g + decay·w (Robbins, Monro 1951; Polyak 1964; as in torch.optim.SGD).

    Costs one forward and one backward pass a step. Not for nets whose gradients differ much in scale from
    layer to layer: there one rate fits no layer well.
    """

    name: ClassVar[str] = "sgd"

    lr: float = 0.1
    momentum: float = 0.0
    decay: float = 0.0  # added to the gradient: L2 regularisation

    def __post_init__(self) -> None:
        require_rate(self.name, self.lr)
        require(0 <= self.momentum < 1, f"momentum of {self.name} must lie in [0, 1), not {self.momentum}")
        require(self.decay >= 0, f"decay of {self.name} must not be negative, not {self.decay}")

    def init(self, weights: Tensor, layout: Layout) -> State:
        return {"velocity": weights.new_zeros(weights.shape)} if self.momentum else {}

    def rate(self, step: Step) -> float:
        return self.lr * step.scale

    def apply(self, gradient: Tensor, weights: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        slope = gradient.add(weights, alpha=self.decay) if self.decay else gradient
        if self.momentum:
            slope = self.direction(slope, state["velocity"].mul_(self.momentum).add_(slope))
        return weights.sub(slope, alpha=self.rate(step)), state

    def direction(self, slope: Tensor, velocity: Tensor) -> Tensor:
        """Where the step goes, of the gradient and the velocity that it has already been added to. (parameter,) each"""
        return velocity


@dataclass(frozen=True)
class Momentum(Sgd):
    """The heavy ball (Polyak 1964): `Sgd` with momentum .9 as its default. Cost and when not to use it: as `Sgd`."""

    name: ClassVar[str] = "momentum"

    momentum: float = 0.9


@dataclass(frozen=True)
class Nesterov(Momentum):
    """w ← w − lr·(g + momentum·v): the gradient counts as if it were read where momentum leads (Nesterov 1983).

    In the form of Sutskever et al. 2013, as in torch.optim.SGD. Costs and when not to use it: as `Sgd`.
    """

    name: ClassVar[str] = "nesterov"

    def direction(self, slope: Tensor, velocity: Tensor) -> Tensor:
        return slope.add(velocity, alpha=self.momentum)
