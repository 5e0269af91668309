"""Muon: momentum whose singular values are all brought near one."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from crevasse.rules.base import BaseRule, State, Step, require_rate
from crevasse.rules.layout import Layout, Part
from crevasse.spec import require

#: Of a·s + b·s³ + c·s⁵, steep at zero, which carries singular values into about [0.7, 1.2] (Jordan et al. 2024).
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrix: Tensor, rounds: int = 5) -> Tensor:
    """Nearly U·Vᵀ of a matrix U·S·Vᵀ, by Newton–Schulz: products only, whatever the size. (row, column) -> the same"""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / torch.linalg.vector_norm(x).clamp(min=torch.finfo(x.dtype).tiny)
    for _ in range(rounds):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


@dataclass(frozen=True)
class Muon(BaseRule):
    """Matrices: w ← (1 − lr·decay)·w − lr·√max(1, rows/columns)·NS(g + momentum·(m − g)); all other parts: adamw.

    m ← momentum·m + (1 − momentum)·g, and NS brings all singular values near one (Jordan et al. 2024, "Muon"). In
    float32, as bfloat16 is slow on a CPU; kernels are flattened to a row a unit. Embeddings, the head and vectors
    move by adamw at `rest_lr`. Both rates follow the schedule; `rate` is (parameter,), without the factor of shape.

    Costs one forward and one backward pass a step, 15 products for each matrix (15 ms on one core for two layers of
    width 128), and one vector of memory, two for the other parts. Not for learners with hardly any inner matrices,
    nor where gradients have few directions that mean anything: noise is made as large as the rest.
    """

    name: ClassVar[str] = "muon"

    lr: float = 0.02  # of matrices: the spectral norm of a step
    decay: float = 0.01
    momentum: float = 0.95
    rest_lr: float = 3e-3  # of embeddings, head and vectors
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        require_rate(self.name, self.lr)
        require(0 <= self.rest_lr < 1e6, f"rest_lr of muon must be a number from 0 up, not {self.rest_lr}")
        require(self.decay >= 0, f"decay of muon must not be negative, not {self.decay}")
        for name in ("momentum", "beta1", "beta2"):
            require(0 <= getattr(self, name) < 1, f"{name} of muon must lie in [0, 1), not {getattr(self, name)}")
        require(self.epsilon > 0, f"epsilon of muon must be positive, not {self.epsilon}")

    def init(self, weights: Tensor, layout: Layout) -> State:
        return {
            "mean": weights.new_zeros(weights.shape),  # of matrices the momentum, of the rest Adam's first moment
            "square": weights.new_zeros(sum(part.size for part in _rest(layout))),
            "count": weights.new_zeros(()),
        }

    def rate(self, step: Step) -> float | Tensor:
        rates = [self.lr if part.kind == "matrix" else self.rest_lr for part in step.layout.parts]
        if len(set(rates)) == 1:
            return rates[0] * step.scale
        sizes = torch.tensor([part.size for part in step.layout.parts])
        return torch.tensor(rates).mul_(step.scale).repeat_interleave(sizes)

    def apply(self, gradient: Tensor, weights: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        moved, rate, rest = weights.clone(), self.lr * step.scale, _rest(step.layout)
        for part in step.layout.parts:
            if part.kind == "matrix":
                slope, mean = part.matrix(gradient), part.matrix(state["mean"])
                mean.lerp_(slope, 1 - self.momentum)
                direction = orthogonalised(slope.lerp(mean, self.momentum))
                shape = max(1.0, slope.shape[0] / slope.shape[1]) ** 0.5
                part.matrix(moved).mul_(1 - rate * self.decay).sub_(direction, alpha=rate * shape)
        if rest:
            squares = torch.split(state["square"], [part.size for part in rest])
            adamw(
                [part.of(moved) for part in rest],
                [part.of(gradient) for part in rest],
                [part.of(state["mean"]) for part in rest],
                [square.view(part.shape) for part, square in zip(rest, squares, strict=True)],
                [],
                [state["count"].clone() for _ in rest],  # the kernel adds one to each
                fused=True, amsgrad=False, maximize=False, beta1=self.beta1, beta2=self.beta2,
                lr=self.rest_lr * step.scale, weight_decay=self.decay, eps=self.epsilon,
            )  # fmt: skip
        state["count"].add_(1)
        return moved, state


def _rest(layout: Layout) -> list[Part]:
    return [part for part in layout.parts if part.kind != "matrix"]
