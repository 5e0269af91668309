"""Gradients whose slow part is made stronger."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step
from crevasse.rules.layout import Layout
from crevasse.rules.transform import Transform
from crevasse.spec import require


@dataclass(frozen=True)
class Grokfast(Transform):
    """g ← g + lamb·m before the base, with m ← alpha·m + (1 − alpha)·g (Lee et al. 2024, "Grokfast-EMA").

    As in the published code m starts as the first gradient, not as zero. Costs one vector of memory beyond its base,
    and no pass. The step of an sgd is up to 1 + lamb times longer; adamw divides that out again. Not together with a
    heavy momentum, which is the same filter once more; nor to be compared with a base that was not tuned as well.
    """

    name: ClassVar[str] = "grokfast"

    alpha: float = 0.98  # share of the mean that is kept each step
    lamb: float = 2.0  # lambda: how much of the mean is added

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.alpha < 1, f"alpha of grokfast must lie in [0, 1), not {self.alpha}")
        require(0 <= self.lamb < 1e6, f"lamb of grokfast must be a number from 0 up, not {self.lamb}")

    def remember(self, weights: Tensor, layout: Layout) -> State:
        return {"mean": weights.new_zeros(weights.shape), "begun": weights.new_zeros(())}

    def before(self, gradient: Tensor, weights: Tensor, own: State, step: Step) -> Tensor:
        own["mean"].lerp_(gradient, 1 - self.alpha * own["begun"])
        own["begun"].fill_(1)
        return gradient.add(own["mean"], alpha=self.lamb)


@dataclass(frozen=True)
class GrokfastMa(Transform):
    """g ← g + lamb·(the mean of the last `window` gradients, this one among them) before the base (Lee et al. 2024).

    As published nothing is added until the window is full; without `warmup` the mean is of those there are. The sum
    of the window is kept up to date and made anew each time round, so that rounding never adds up over more than a
    window.

    Costs `window` + 1 vectors of memory, in checkpoints too (at 400,000 weights and a window of 100: 160 MB), and no
    pass. Not for large nets, nor behind a rule that tries steps out, which copies all that: `grokfast` needs one
    vector.
    """

    name: ClassVar[str] = "grokfast-ma"

    window: int = 100  # gradients
    lamb: float = 5.0  # lambda: how much of the mean is added
    warmup: bool = True  # nothing is added before the window is full

    def __post_init__(self) -> None:
        super().__post_init__()
        require(1 <= self.window <= 100_000, f"window of grokfast-ma must lie between 1 and 100000, not {self.window}")
        require(0 <= self.lamb < 1e6, f"lamb of grokfast-ma must be a number from 0 up, not {self.lamb}")

    def remember(self, weights: Tensor, layout: Layout) -> State:
        return {
            "gradients": weights.new_zeros(self.window, *weights.shape),  # a ring: the newest replaces the oldest
            "sum": weights.new_zeros(weights.shape),
            "count": torch.zeros((), dtype=torch.long, device=weights.device),
        }

    def before(self, gradient: Tensor, weights: Tensor, own: State, step: Step) -> Tensor:
        turn, place = divmod(int(own["count"]), self.window)
        oldest = own["gradients"][place]
        own["sum"].add_(gradient).sub_(oldest)
        oldest.copy_(gradient)
        own["count"].add_(1)
        if place == self.window - 1:
            torch.sum(own["gradients"], 0, out=own["sum"])
        full = turn > 0 or place == self.window - 1
        if self.warmup and not full:
            return gradient
        return gradient.add(own["sum"], alpha=self.lamb / (self.window if full else place + 1))
