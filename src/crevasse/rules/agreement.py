"""Rules that make one gradient of those of several microbatches."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from crevasse.rules.base import State, Step, Update, inner, joined, own
from crevasse.rules.oracle import Asking, Oracle
from crevasse.rules.transform import Around
from crevasse.spec import require


@dataclass(frozen=True)
class Agreement(Around):
    """A base rule on what the gradients of k microbatches are combined to; no step where they agree on nothing.

    Costs one forward and one backward pass over the batch, in k parts, and k vectors of memory.
    """

    k: int = 2  # microbatches

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.k <= 1024, f"k of {self.name} must lie between 2 and 1024, not {self.k}")

    @abstractmethod
    def combine(self, gradients: Tensor, step: Step) -> tuple[Tensor, float]:
        """gradients (microbatch, parameter), not changed in place -> one gradient (parameter,), the share agreed on.

        Of no agreement (0.0) no step is made.
        """

    def microbatches(self) -> int:
        return self.k

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        losses, gradients = yield from oracle.microbatch_gradients(self.k)
        gradient, agreed = self.combine(gradients, step)
        if agreed == 0.0:
            return Update(weights, state, losses.mean(), agreed)
        moved, base = self.base.apply(gradient, weights, inner(state), step)
        return Update(moved, joined(own(state), base), losses.mean(), agreed)
