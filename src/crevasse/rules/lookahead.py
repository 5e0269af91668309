"""Slow weights that follow fast ones."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step
from crevasse.rules.layout import Layout
from crevasse.rules.transform import Transform
from crevasse.spec import require


@dataclass(frozen=True)
class Lookahead(Transform):
    """After every k steps of the base: slow ← slow + alpha·(w − slow), w ← slow (Zhang et al. 2019).

    Judged are the slow weights, as published. The base's momentum is kept over the jump back. Steps at a rate of zero
    do not count. At alpha = 1 the training is its base's. Costs one vector of memory beyond its base, and no pass.
    Not where training is short or smooth: progress is about alpha times that of the base.
    """

    name: ClassVar[str] = "lookahead"

    k: int = 5  # steps of the base from one jump to the next
    alpha: float = 0.5  # share of the way that the slow weights go

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.k <= 1_000_000, f"k of lookahead must lie between 1 and a million, not {self.k}")
        require(0 < self.alpha <= 1, f"alpha of lookahead must lie in (0, 1], not {self.alpha}")

    def remember(self, weights: Tensor, layout: Layout) -> State:
        return {"slow": weights.clone(), "count": torch.zeros((), dtype=torch.long, device=weights.device)}

    def after(self, moved: Tensor, weights: Tensor, own: State, step: Step) -> Tensor:
        if step.scale == 0:
            return moved
        own["count"].add_(1)
        if int(own["count"]) % self.k:
            return moved
        return own["slow"].lerp_(moved, self.alpha).clone()

    def judged(self, weights: Tensor, state: State) -> Tensor:
        return state["slow"]
