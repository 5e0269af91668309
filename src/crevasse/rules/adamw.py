"""Adam with decoupled weight decay."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import BaseRule, State, require_rate
from crevasse.spec import require


@dataclass(frozen=True)
class AdamW(BaseRule):
    """w ← (1 − lr·decay)·w − lr·m̂/(√v̂ + ε) with bias-corrected moments (Loshchilov, Hutter 2019).

    Costs one forward and one backward pass a step, and two vectors of memory. The decay is part of the step:
    what matters for starving a network is the product lr·decay.
    """

    name: ClassVar[str] = "adamw"

    lr: float = 3e-3
    decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        require_rate(self.name, self.lr)
        require(self.decay >= 0, f"decay of adamw must not be negative, not {self.decay}")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"{name} of adamw must lie in [0, 1), not {getattr(self, name)}")
        require(self.epsilon > 0, f"epsilon of adamw must be positive, not {self.epsilon}")

    def init(self, weights: Tensor) -> State:
        zeros = weights.new_zeros(weights.shape)
        return {"mean": zeros, "square": zeros.clone(), "count": torch.zeros((), dtype=torch.int64)}

    def apply(self, gradient: Tensor, weights: Tensor, state: State, scale: float) -> tuple[Tensor, State]:
        count = int(state["count"].add_(1))
        mean, square, lr = state["mean"], state["square"], self.lr * scale
        mean.lerp_(gradient, 1 - self.beta1)
        square.mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        size = square.sqrt().div_(math.sqrt(1 - self.beta2**count)).add_(self.epsilon)
        moved = weights.mul(1 - lr * self.decay)
        return moved.addcdiv_(mean, size, value=-lr / (1 - self.beta1**count)), state
