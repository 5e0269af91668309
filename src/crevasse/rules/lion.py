"""Lion: the sign of an interpolated momentum."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from crevasse.rules.base import BaseRule, State, Step, require_rate
from crevasse.rules.layout import Layout
from crevasse.spec import require


@dataclass(frozen=True)
class Lion(BaseRule):
    """w ← (1 − lr·decay)·w − lr·sign(beta1·m + (1 − beta1)·g), then m ← beta2·m + (1 − beta2)·g (Chen et al. 2023).

    Every entry moves by lr whatever the size of its gradient, so lr is three to ten times smaller than that of adamw
    and decay as much larger. Costs one forward and one backward pass a step, and one vector of memory. Not for small
    batches, whose signs are mostly noise; nor without a schedule that ends low, as the last steps are as long as the
    first.
    """

    name: ClassVar[str] = "lion"

    lr: float = 1e-3
    decay: float = 0.03
    beta1: float = 0.9  # share of the momentum in what gives the sign
    beta2: float = 0.99  # share of the momentum that is kept

    def __post_init__(self) -> None:
        require_rate(self.name, self.lr)
        require(self.decay >= 0, f"decay of lion must not be negative, not {self.decay}")
        for name in ("beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"{name} of lion must lie in [0, 1), not {getattr(self, name)}")

    def init(self, weights: Tensor, layout: Layout) -> State:
        return {"mean": weights.new_zeros(weights.shape)}

    def rate(self, step: Step) -> float:
        return self.lr * step.scale

    def apply(self, gradient: Tensor, weights: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        rate, mean = self.rate(step), state["mean"]
        direction = mean.lerp(gradient, 1 - self.beta1).sign_()
        mean.lerp_(gradient, 1 - self.beta2)
        return weights.mul(1 - rate * self.decay).sub_(direction, alpha=rate), state
