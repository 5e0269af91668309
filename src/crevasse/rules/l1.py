"""Weights that are drawn to zero, and stay there."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import Step
from crevasse.rules.transform import Transform
from crevasse.spec import require


@dataclass(frozen=True)
class L1(Transform):
    """w ← sign(w)·max(0, |w| − strength·rate) after the base rule: soft threshold, on all but biases and norms.

    With plain gradient descent as the base it is ISTA (Daubechies et al. 2004) for loss + strength·‖W‖₁, and weights
    become exactly zero. Before adaptive rates the pull stays strength·rate for each weight, as decoupled decay
    does. Strength 0 is the base rule.

    Costs the passes of its base. Not with `decay` in the base at once, if the strength is to be read as what it is; not
    beside momentum as ISTA: the velocity does not know of the threshold.
    """

    name: ClassVar[str] = "l1"

    strength: float = 0.01  # of ‖W‖₁, in nats
    vectors: bool = False  # biases and norms as well

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.strength < 1e6, f"strength of {self.name} must be a number from 0 up, not {self.strength}")

    def after(self, moved: Tensor, weights: Tensor, own: dict[str, Tensor], step: Step) -> Tensor:
        if self.strength == 0:
            return moved
        rate = self.base.rate(step)
        for part in step.layout.parts:
            if self.vectors or part.kind != "vector":
                mine = part.of(moved)
                threshold = self.strength * (part.of(rate) if isinstance(rate, Tensor) and rate.dim() else rate)
                bound = torch.as_tensor(threshold, dtype=moved.dtype, device=moved.device)
                mine.sub_(mine.clamp(-bound, bound))
        return moved
