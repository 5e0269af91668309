"""Gradients without the part that only makes the weights longer or shorter."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crevasse.rules.base import State, Step, Update
from crevasse.rules.oracle import Ask, Asking, Oracle
from crevasse.rules.transform import Transform
from crevasse.spec import require


@dataclass(frozen=True)
class Perp(Transform):
    """g ← g − strength·(w·g / w·w)·w before the base, by itself in each parameter (Prieto et al. 2025, "⊥Grad").

    Once the answers fit, a net can lower its loss by scaling its logits alone, along its own weights, until softmax
    rounds to nothing; without that component it cannot. What is left is brought back to the length of g, as in the
    published code (the formula of the paper: ``rescale=false``). A gradient that is all along its weights becomes
    zero: a parameter of a single number never moves.

    Costs nothing beyond its base. Not where the right answer needs large weights; nor as a bound on them: a base with
    a long step or with momentum still makes them longer.
    """

    name: ClassVar[str] = "perp"

    strength: float = 1.0  # share of the component along the weights that is taken away
    by: Literal["part", "whole"] = "part"  # whole: of the vector of all weights at once
    rescale: bool = True  # to the length of the gradient before
    stablemax: bool = False  # ask with StableMax for softmax

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.strength <= 1, f"strength of perp must lie between 0 and 1, not {self.strength}")

    def before(self, gradient: Tensor, weights: Tensor, own: State, step: Step) -> Tensor:
        left = gradient.clone()
        sizes = [len(weights)] if self.by == "whole" else [part.size for part in step.layout.parts]
        for g, w, rest in zip(*(torch.split(v, sizes) for v in (gradient, weights, left)), strict=True):
            rest.addcmul_(
                w, torch.dot(w, g) / torch.dot(w, w).clamp_(min=torch.finfo(w.dtype).tiny), value=-self.strength
            )
            if self.rescale:
                before, after = torch.linalg.vector_norm(g), torch.linalg.vector_norm(rest)
                # Of a gradient along its weights only rounding is left, which is no direction to go.
                seen = after > 4 * torch.finfo(g.dtype).eps * before
                rest.mul_(torch.where(seen, before / after, torch.zeros_like(after)))
        return left

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        seen = yield Ask(stablemax=self.stablemax)
        assert seen.gradients is not None
        moved, state = self.apply(seen.gradients[0], weights, state, step)
        return Update(moved, state, seen.losses[0])
