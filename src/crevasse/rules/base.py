"""What a rule is: pure mathematics on a vector of weights."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from crevasse.rules.oracle import Asking, Oracle
from crevasse.spec import Named, require

#: What a rule remembers from step to step, by name; saved and restored with the trial.
State = dict[str, Tensor]


@dataclass(frozen=True)
class Update:
    """What a rule decided in one step."""

    weights: Tensor  # (parameter,) the new weights
    state: State
    loss: Tensor  # () the training loss that was seen before the step
    agreed: float = 1.0  # share of what it asked that it let through; 0: the step was filtered out


class Rule(Named, ABC):
    """Base of all rules: frozen dataclasses of settings, without any state of their own."""

    @abstractmethod
    def init(self, weights: Tensor) -> State:
        """The state before the first step. weights (parameter,)"""

    @abstractmethod
    def update(self, oracle: Oracle, weights: Tensor, state: State, scale: float) -> Asking[Update]:
        """One step, which stops at each question to the oracle (``yield from``).

        weights (parameter,) are not changed in place; `scale` is the schedule's factor of the rate.
        The given state must not change before the last question, as a trial may be stopped at each; the returned one
        may reuse its tensors.
        """

    def microbatches(self) -> int:
        """Into how many parts a batch has to divide."""
        return 1


class BaseRule(Rule):
    """A rule that turns one gradient into one step; other rules put a transform before it."""

    @abstractmethod
    def apply(self, gradient: Tensor, weights: Tensor, state: State, scale: float) -> tuple[Tensor, State]:
        """gradient, weights (parameter,) -> new weights (parameter,), new state"""

    def update(self, oracle: Oracle, weights: Tensor, state: State, scale: float) -> Asking[Update]:
        loss, gradient = yield from oracle.gradient()
        moved, state = self.apply(gradient, weights, state, scale)
        return Update(moved, state, loss)


def require_rate(name: str, lr: float) -> None:
    """Raises UserError for a learning rate that cannot be."""
    require(0 <= lr < 1e6, f"lr of {name} must be a number from 0 up, not {lr}")
