"""First fit, then compress: a pull to small weights that begins when the training loss is low."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step, Update, inner, joined, own
from crevasse.rules.layout import Layout
from crevasse.rules.oracle import Asking, Oracle
from crevasse.rules.transform import Around
from crevasse.spec import require


@dataclass(frozen=True)
class DelayedCompression(Around):
    """The base rule on ∇(L + strength·‖W‖²) while the smoothed training loss is under `below`, on ∇L else.

    After "A simple method for accelerating grokking" (LessWrong, code vuciv/grokfast, 2025): 0.01·‖W‖² once the
    training accuracy is at least .99. Here the *training* loss decides, smoothed over steps (l ← smooth·l +
    (1 − smooth)·loss), as that is what a rule sees; nothing held out is ever asked for. W is all but biases and norms
    (theirs holds the norms' gains as well). As published the pull ends when the loss rises again; with `latch` what is
    once on stays on. Strength 0 is the base rule.

    Costs one forward and one backward pass over the batch. Not with a training loss that never falls under `below`,
    under label noise say: it is then the base rule. The pull goes through the base, so adamw divides it by its size
    as it does the gradient.
    """

    name: ClassVar[str] = "delayed-compression"

    strength: float = 0.01  # of ‖W‖²
    below: float = 0.1  # smoothed training loss, in nats, under which it pulls
    smooth: float = 0.9  # share of the smoothed loss that is kept in a step
    latch: bool = False  # once on it stays on

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.strength < 1e6, f"strength of {self.name} must be a number from 0 up, not {self.strength}")
        require(self.below >= 0, f"below of {self.name} must be a number from 0 up, not {self.below}")
        require(0 <= self.smooth < 1, f"smooth of {self.name} must lie in [0, 1), not {self.smooth}")

    def remember(self, weights: Tensor, layout: Layout) -> State:
        return {"loss": weights.new_full((), torch.inf), "on": weights.new_zeros(())}

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        loss, gradient = yield from oracle.gradient()
        mine = own(state)
        before = mine["loss"]
        smoothed = torch.where(before.isinf(), loss, self.smooth * before + (1 - self.smooth) * loss)
        on = bool(smoothed < self.below) or (self.latch and bool(mine["on"]))
        if on and self.strength:
            gradient = gradient.clone()
            for part in step.layout.parts:
                if part.kind != "vector":
                    part.of(gradient).add_(part.of(weights), alpha=2 * self.strength)
        mine |= {"loss": smoothed.to(before.dtype), "on": torch.full_like(mine["on"], float(on))}
        moved, base = self.base.apply(gradient, weights, inner(state), step)
        return Update(moved, joined(mine, base), loss)
