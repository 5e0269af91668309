"""The scope step: what each fold teaches, taken only where it also teaches the others."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.agreement import Agreement
from crevasse.rules.base import Step
from crevasse.rules.layout import Part
from crevasse.rules.scopes import gathered, scattered
from crevasse.spec import require


def apart(part: Part) -> bool:
    """Is each row a scope? A token's embedding and an answer's row are; any other parameter is one as a whole."""
    return part.kind in ("embedding", "head")


@dataclass(frozen=True)
class Scope(Agreement):
    """The base rule on meanᵢ Σₛ aᵢₛ·gᵢₛ, aᵢₛ = ⟨gᵢₛ, mean_{j≠i} gⱼₛ⟩/|gᵢₛ|² cut to [0, 1].

    Proposed here, to be refuted. A gradient of fold i is split by where it acts (s): the embedding of a token, the
    row of an answer in the head, or a parameter inside, which all examples share. What fold i teaches in a scope
    counts as far as it is also taught by the others; where it stands alone, nothing is learnt. With strength s the
    weight is 1 − s + s·a.

    Costs one forward and one backward pass over the batch, in k parts, and about 2k vectors of memory. Not with so
    many tokens or answers that a fold seldom has one that another has too: embeddings and head then learn nothing.
    """

    name: ClassVar[str] = "scope"

    strength: float = 1.0  # 0: the mean gradient

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.strength <= 1, f"strength of {self.name} must lie in [0, 1], not {self.strength}")

    def combine(self, gradients: Tensor, step: Step) -> tuple[Tensor, float]:
        square = gathered(step.layout, gradients * gradients, apart)  # (microbatch, scope)
        others = gradients.sum(0) - gradients
        help_ = gathered(step.layout, others.mul_(gradients), apart) / (self.k - 1)
        taught = square > 0
        share = torch.where(taught, (help_ / square).clamp(0, 1), torch.zeros_like(square))
        share = 1 - self.strength * (1 - share)
        agreed = float(share[taught].mean()) if bool(taught.any()) else 1.0
        return (gradients * scattered(step.layout, share, apart)).mean(0), agreed
