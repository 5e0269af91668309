"""Gradient descent that keeps shaking: Langevin dynamics."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import BaseRule, Step
from crevasse.rules.sgd import Sgd
from crevasse.rules.transform import Transform
from crevasse.spec import require


@dataclass(frozen=True)
class Sgld(Transform):
    """w ← base(w) + √(2·rate·temperature)·ξ, ξ standard normal (Welling, Teh 2011).

    With plain gradient descent as the base and small rates, w then wanders with density ∝ exp(−loss(w)/temperature); of
    a mean loss over N examples, temperature 1/N is the posterior under a flat prior. Temperature 0 is the base rule.

    Costs the passes of its base, and one normal draw for each weight. Not a sampler behind any other base than plain
    sgd: under adamw or momentum it is descent with noise of that size, and no more is claimed.
    """

    name: ClassVar[str] = "sgld"

    base: BaseRule = Sgd()
    temperature: float = 1e-4  # in nats of the mean loss

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            0 <= self.temperature < 1e6,
            f"temperature of {self.name} must be a number from 0 up, not {self.temperature}",
        )

    def after(self, moved: Tensor, weights: Tensor, own: dict[str, Tensor], step: Step) -> Tensor:
        if self.temperature == 0:
            return moved
        noise = torch.randn(moved.shape, generator=step.generator("sgld"), dtype=moved.dtype).to(moved.device)
        variance = torch.as_tensor(2 * self.temperature * self.base.rate(step), dtype=moved.dtype, device=moved.device)
        return moved.add_(noise.mul_(variance**0.5))
