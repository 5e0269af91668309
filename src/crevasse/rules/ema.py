"""Training judged by an exponential average of its weights."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step
from crevasse.rules.layout import Layout
from crevasse.rules.transform import Transform
from crevasse.spec import require


@dataclass(frozen=True)
class Ema(Transform):
    """Trains as its base; judged is a ← decay·a + (1 − decay)·w, the average of the weights (Polyak, Juditsky 1992).

    Corrected for its start, as Adam's moments are: the weights after step i of t count decay^(t − i), and the initial
    ones nothing. Without the correction the average starts at the initial weights, as in
    torch.optim.swa_utils. It has a memory of about 1/(1 − decay) steps.

    Costs one vector of memory and one look at it beyond its base, no pass. Not for trainings shorter than that
    memory; and where the weights jump over to the rule at the end, the average comes later.
    """

    name: ClassVar[str] = "ema"

    decay: float = 0.99
    corrected: bool = True  # false: the average starts at the initial weights

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.decay < 1, f"decay of ema must lie in [0, 1), not {self.decay}")

    def remember(self, weights: Tensor, layout: Layout) -> State:
        return {"average": weights.clone(), "count": torch.zeros((), dtype=torch.long, device=weights.device)}

    def after(self, moved: Tensor, weights: Tensor, own: State, step: Step) -> Tensor:
        made = int(own["count"].add_(1))
        share = (1 - self.decay) / (1 - self.decay**made) if self.corrected else 1 - self.decay
        own["average"].lerp_(moved, share)
        return moved

    def judged(self, weights: Tensor, state: State) -> Tensor:
        return state["average"]
