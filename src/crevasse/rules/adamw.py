"""Adam with decoupled weight decay."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.optim.adamw import adamw

from crevasse.rules.base import BaseRule, State, Step, require_rate
from crevasse.rules.layout import Layout
from crevasse.spec import require


@dataclass(frozen=True)
class AdamW(BaseRule):
    """w ← (1 − lr·decay)·w − lr·m̂/(√v̂ + ε) with bias-corrected moments (Loshchilov, Hutter 2019).

    Costs one forward and one backward pass a step, and two vectors of memory. The decay is part of the step:
    what matters for starving a network is the product lr·decay. Not where memory is short: `lion` keeps one vector.
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

    def init(self, weights: Tensor, layout: Layout) -> State:
        zeros = weights.new_zeros(weights.shape)
        return {"mean": zeros, "square": zeros.clone(), "count": weights.new_zeros(())}

    def rate(self, step: Step) -> float:
        return self.lr * step.scale

    def apply(self, gradient: Tensor, weights: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        moved = weights.clone()
        # torch's own kernel: one pass over the vectors instead of eight, which is most of the cost of a large model.
        adamw(
            [moved], [gradient], [state["mean"]], [state["square"]], [], [state["count"]], fused=True,
            amsgrad=False, maximize=False, beta1=self.beta1, beta2=self.beta2, lr=self.rate(step),
            weight_decay=self.decay, eps=self.epsilon,
        )  # fmt: skip
        return moved, state
