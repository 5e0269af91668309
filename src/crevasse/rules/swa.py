"""Training judged by the plain average of its late weights."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step
from crevasse.rules.layout import Layout
from crevasse.rules.transform import Transform
from crevasse.spec import require


@dataclass(frozen=True)
class Swa(Transform):
    """Trains as its base; judged is the mean of the weights after steps start, start + every, … (Izmailov et al. 2018).

    Before the first of these the base's own weights are judged. Costs one vector of memory beyond its base, and no
    pass. Not with a `start` before training has settled, nor with a rate that has fallen to nothing by then: the
    method wants weights that still move about in one valley, and the mean of two valleys lies on the ridge.
    """

    name: ClassVar[str] = "swa"

    start: int = 500  # steps made when the first weights are taken
    every: int = 10  # steps from one to the next

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.start >= 0, f"start of swa must not be negative, not {self.start}")
        require(self.every >= 1, f"every of swa must be at least 1, not {self.every}")

    def remember(self, weights: Tensor, layout: Layout) -> State:
        return {"average": weights.clone(), "taken": torch.zeros((), dtype=torch.long, device=weights.device)}

    def after(self, moved: Tensor, weights: Tensor, own: State, step: Step) -> Tensor:
        since = step.number + 1 - self.start
        if since >= 0 and since % self.every == 0:
            taken = own["taken"].add_(1)
            own["average"].lerp_(moved, 1 / taken.to(moved.dtype))
        return moved

    def judged(self, weights: Tensor, state: State) -> Tensor:
        return state["average"] if state["taken"] else super().judged(weights, state)
