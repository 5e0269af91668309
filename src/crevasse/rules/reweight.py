"""Learning to reweight: what helps the steer set counts."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from crevasse.rules.base import State, Step, Update, inner, joined, own
from crevasse.rules.oracle import Asking, Oracle
from crevasse.rules.transform import Around
from crevasse.spec import require


@dataclass(frozen=True)
class Reweight(Around):
    """The base rule on Σ wᵢ·gᵢ with wᵢ ∝ max(0, ⟨gᵢ, g_steer⟩), Σ wᵢ = 1: parts count as they help the steer set.

    After Ren et al. 2018, "Learning to reweight examples for robust deep learning": there a virtual step of gradient
    descent is differentiated by the weights of its examples at weight zero, which is this inner product. The
    published form is per example: k = batch size. No step is made where no part helps. With strength s a part weighs
    s·wᵢ + (1 − s)/k.

    Costs one forward and one backward pass over the batch, in k parts, the same over the steer set's batch, and k
    vectors of memory. Not where the steer set is small: once it is known by heart its gradient says nothing, and
    what it weighs up is what it has in common with itself.
    """

    name: ClassVar[str] = "reweight"

    k: int = 8  # parts of the batch that are weighed
    strength: float = 1.0  # 0: all parts weigh the same

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.k <= 1024, f"k of {self.name} must lie between 2 and 1024, not {self.k}")
        require(0 <= self.strength <= 1, f"strength of {self.name} must lie in [0, 1], not {self.strength}")

    def microbatches(self) -> int:
        return self.k

    @property
    def steers(self) -> bool:
        return True

    def weigh(self, gradients: Tensor, wanted: Tensor) -> Tensor:
        """gradients (part, parameter), that of the steer set (parameter,) -> the parts' weights (part,)"""
        helps = (gradients @ wanted).clamp(min=0)
        total = helps.sum()
        shares = helps if total == 0 else helps / total
        return self.strength * shares + (1 - self.strength) / self.k

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        losses, gradients = yield from oracle.microbatch_gradients(self.k)
        _, wanted = yield from oracle.gradient(steer=True)
        shares = self.weigh(gradients, wanted)
        agreed = float((shares != 0).float().mean())
        if agreed == 0.0:
            return Update(weights, state, losses.mean(), agreed)
        moved, base = self.base.apply(shares @ gradients, weights, inner(state), step)
        return Update(moved, joined(own(state), base), losses.mean(), agreed)
