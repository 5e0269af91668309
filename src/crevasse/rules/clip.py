"""Gradients of bounded length."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step
from crevasse.rules.transform import Transform
from crevasse.spec import require


@dataclass(frozen=True)
class Clip(Transform):
    """g ← g·min(1, norm/‖g‖) before the base rule, over the whole vector (Pascanu et al. 2013).

    As torch.nn.utils.clip_grad_norm_, for places where no gradient passes through your own hands: behind an agreement
    (``gaf:base=clip``) or a second pass. Costs nothing beyond its base. Not before a base that divides by the size of
    the gradient anyway, as adamw and muon do, unless single steps stand out.
    """

    name: ClassVar[str] = "clip"

    norm: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.norm > 0, f"norm of clip must be positive, not {self.norm}")

    def before(self, gradient: Tensor, weights: Tensor, own: State, step: Step) -> Tensor:
        size = torch.linalg.vector_norm(gradient)
        shorter: Tensor = gradient * (self.norm / (size + 1e-6)).clamp(max=1.0)
        return shorter
