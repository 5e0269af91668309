"""The cross-fit gate: of a step only what also helps data that had no part in it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from crevasse.rules.base import State, Step, Update, inner, joined, own, proposed
from crevasse.rules.layout import Layout
from crevasse.rules.oracle import Asking, Oracle
from crevasse.rules.scopes import gathered, scattered
from crevasse.rules.transform import Around
from crevasse.spec import require


@dataclass(frozen=True)
class Crossfit(Around):
    """w + gate·(base's step on the mean gradient), the gate of a row the share of its descent that carries over.

    Proposed here, to be refuted. For each of k folds the base proposes a step dᵢ from ḡᵢ, the mean gradient of the
    *other* folds. In each row (r) of each matrix

        own = −Σᵢ ⟨ḡᵢ, dᵢ⟩ᵣ, held out = −Σᵢ ⟨gᵢ, dᵢ⟩ᵣ, gate = held out/own, cut to [0, 1]; 0 where own ≤ 0.

    It stands after the base's normalisation, which would undo a gate on the gradient. The base's state goes on with
    the mean gradient. A row that the base would move uphill for its own folds (momentum, decay) is frozen too, and so
    is one that has no gradient. With strength s the gate is 1 − s + s·gate.

    Costs one forward and one backward pass over the batch, in k parts, k + 1 steps of the base and k + 3 vectors of
    memory. Not with a base whose step is dear (muon), nor with small folds late in training, where all is frozen.
    """

    name: ClassVar[str] = "crossfit"

    k: int = 2  # folds of the batch
    by: Literal["row", "part", "whole"] = "row"  # what has one gate: a row of a matrix, a parameter, all weights
    strength: float = 1.0  # 0: the gate is open

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.k <= 1024, f"k of {self.name} must lie between 2 and 1024, not {self.k}")
        require(0 <= self.strength <= 1, f"strength of {self.name} must lie in [0, 1], not {self.strength}")

    def microbatches(self) -> int:
        return self.k

    def descent(self, products: Tensor, layout: Layout) -> Tensor:
        """Summed over what has one gate. (parameter,) -> (gate,)"""
        sums = gathered(layout, products, lambda part: self.by == "row")
        return sums.sum(-1, keepdim=True) if self.by == "whole" else sums

    def gate(self, gradients: Tensor, weights: Tensor, base: State, step: Step) -> Tensor:
        """How far each weight may go, 0 to 1. gradients (fold, parameter) -> (parameter,)"""
        total = gradients.sum(0)
        trained, held = torch.zeros_like(weights), torch.zeros_like(weights)
        for gradient in gradients:
            others = (total - gradient) / (self.k - 1)
            back = weights - proposed(self.base, others, weights, base, step)
            trained.addcmul_(others, back)
            held.addcmul_(gradient, back)
        trained, held = self.descent(trained, step.layout), self.descent(held, step.layout)
        ratio = torch.where(trained > 0, (held / trained).clamp(0, 1), torch.zeros_like(held))
        open_ = 1 - self.strength * (1 - ratio)
        if self.by == "whole":
            return open_.expand(len(weights))
        return scattered(step.layout, open_, lambda part: self.by == "row")

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        losses, gradients = yield from oracle.microbatch_gradients(self.k)
        gate = self.gate(gradients, weights, inner(state), step)
        moved, base = self.base.apply(gradients.mean(0), weights, inner(state), step)
        # lerp, as it ends exactly at what the base moved to where the gate is open.
        moved = torch.lerp(weights, moved, gate)
        return Update(moved, joined(own(state), base), losses.mean(), float(gate.mean()))
