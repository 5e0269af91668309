"""One-step bilevel descent: also go where a step on some data leads for other data."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step, Update, inner, joined, own
from crevasse.rules.oracle import Ask, Asking, Oracle
from crevasse.rules.transform import Around
from crevasse.spec import require


@dataclass(frozen=True)
class Bilevel(Around):
    """The base rule on (ḡ + beta·ā)/(1 + beta), ḡ = mean gᵢ, ā = mean aᵢ, aᵢ = ∇Lᵢ(w − inner·mean_{j≠i} gⱼ).

    gᵢ is the gradient of fold i of the batch, aᵢ the same after a step of gradient descent on the other folds
    (MLDG, Li et al. 2018, to first order). As beta grows it becomes first-order MAML between folds (Finn et al.
    2017). The division keeps the size of the step what it was. With `steer` the fold that looks ahead is the steer
    set: ā = ∇L_steer(w − inner·ḡ).

    Costs two forward and two backward passes over the batch, each in k parts; with `steer` one of the batch and one
    of the steer set's. Not with a large `inner` on raw gradients late in training, when they are small: it
    has to be of the size of what the base really moves, or the look ahead sees nothing.
    """

    name: ClassVar[str] = "bilevel"

    k: int = 2  # folds of the batch
    inner: float = 0.1  # learning rate of the step that is looked ahead by
    beta: float = 1.0  # weight of what was seen there; 0: the plain gradient
    steer: bool = False  # look ahead for the steer set instead of for other folds

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.k <= 1024, f"k of {self.name} must lie between 2 and 1024, not {self.k}")
        require(0 <= self.inner < 1e6, f"inner of {self.name} must be a number from 0 up, not {self.inner}")
        require(0 <= self.beta < 1e6, f"beta of {self.name} must be a number from 0 up, not {self.beta}")

    def microbatches(self) -> int:
        return 1 if self.steer else self.k

    @property
    def steers(self) -> bool:
        return self.steer

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        losses, gradients = yield from oracle.microbatch_gradients(self.microbatches())
        mean = gradients.mean(0)
        if self.steer:
            _, ahead = yield from oracle.gradient(weights.sub(mean, alpha=self.inner), steer=True)
        else:
            ahead = torch.zeros_like(mean)
            for i in range(self.k):
                others = (mean * self.k - gradients[i]) / (self.k - 1)
                seen = yield Ask(self.k, at=weights.sub(others, alpha=self.inner), only=(i,))
                assert seen.gradients is not None
                ahead = ahead.add(seen.gradients[0], alpha=1 / self.k)
        gradient = mean.add(ahead, alpha=self.beta) / (1 + self.beta)
        moved, base = self.base.apply(gradient, weights, inner(state), step)
        return Update(moved, joined(own(state), base), losses.mean())
