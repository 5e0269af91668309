"""What a rule is: pure mathematics on a vector of weights.

Four ways to change gradient descent, and how they compose:

- a *base* rule turns one gradient into one step (`BaseRule.apply`): sgd, adamw, muon;
- a *transform* stands around a base: it changes the gradient before, or the weights after (`Transform`). It is a base
  rule itself, so transforms stack: ``perp:base=grokfast,base.base=muon``;
- an *agreement* makes one gradient of those of several microbatches and hands it to its base (`agreement.Agreement`);
- anything else asks the oracle as it needs: a second pass, the steer set, losses without gradients.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from crevasse.rules.layout import Layout
from crevasse.rules.oracle import Asking, Oracle
from crevasse.seeds import seed_for
from crevasse.spec import Named, require

#: What a rule remembers from step to step, by name; saved and restored with the trial. The names never change.
State = dict[str, Tensor]


@dataclass(frozen=True)
class Step:
    """What is known of a step besides its gradients."""

    layout: Layout
    scale: float = 1.0  # the schedule's factor of the learning rate
    number: int = 0  # steps made before
    seed: int = 0  # of the whole training

    def generator(self, purpose: str) -> torch.Generator:
        """Random numbers of this step, the same whenever it is made again."""
        return torch.Generator().manual_seed(seed_for(self.seed, f"{purpose} {self.number}"))


@dataclass(frozen=True)
class Update:
    """What a rule decided in one step."""

    weights: Tensor  # (parameter,) the new weights
    state: State
    loss: Tensor  # () the training loss that was seen before the step
    agreed: float = 1.0  # share of what it asked that it let through; 0: the step was filtered out
    done: bool = False  # it will move nothing any more: training may end here


class Rule(Named, ABC):
    """Base of all rules: frozen dataclasses of settings, without any state of their own."""

    @abstractmethod
    def init(self, weights: Tensor, layout: Layout) -> State:
        """The state before the first step. weights (parameter,), on the meta device where only the size is wanted"""

    @abstractmethod
    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        """One step, which stops at each question to the oracle (``yield from``).

        weights (parameter,) are not changed in place. The given state must not change before the last question, as a
        trial may be stopped at each; the returned one may reuse its tensors.
        """

    def require_model(self, layout: Layout) -> None:
        """Raises UserError for a model that it cannot train."""
        return

    def microbatches(self) -> int:
        """Into how many parts a batch has to divide."""
        return 1

    @property
    def steers(self) -> bool:
        """Does it ask about the steer set?"""
        return False

    @property
    def changes(self) -> bool:
        """Does it ask for changed examples?"""
        return False

    def told(self, state: State) -> tuple[str, ...]:
        """What a person should know of what it found, a line each."""
        return ()

    def judged(self, weights: Tensor, state: State) -> Tensor:
        """The weights that stand for the model when it is judged: an average, for rules that keep one. (parameter,)"""
        return weights


class BaseRule(Rule):
    """A rule that turns one gradient into one step."""

    @abstractmethod
    def apply(self, gradient: Tensor, weights: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        """gradient, weights (parameter,), neither changed in place -> new weights in a tensor of their own, new state

        The returned state may reuse the tensors of the given one.
        """

    @abstractmethod
    def rate(self, step: Step) -> float | Tensor:
        """The learning rate of a step; (parameter,) where it is not the same for all."""

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        loss, gradient = yield from oracle.gradient()
        moved, state = self.apply(gradient, weights, state, step)
        return Update(moved, state, loss)


def own(state: State) -> State:
    """The part of a state that is not its base's, in a dictionary of its own; the tensors are the same."""
    return {k: v for k, v in state.items() if not k.startswith("base.")}


def inner(state: State) -> State:
    """The base's part of a state, under the base's own names; the tensors are the same."""
    return {k.removeprefix("base."): v for k, v in state.items() if k.startswith("base.")}


def joined(own: State, inner: State) -> State:
    """One state of a rule's own part and its base's."""
    return own | {f"base.{k}": v for k, v in inner.items()}


def copied(state: State) -> State:
    """The same values in tensors of their own: what has to be gone back to, or tried without being taken."""
    return {k: v.clone() for k, v in state.items()}


def proposed(base: BaseRule, gradient: Tensor, weights: Tensor, state: State, step: Step) -> Tensor:
    """Where a base rule would go, without going: its state stays as it is. (parameter,)"""
    return base.apply(gradient, weights, copied(state), step)[0]


def require_base(rule: Rule, base: object) -> None:
    """Raises UserError unless a base turns one gradient into one step."""
    require(
        isinstance(base, BaseRule),
        f"base of {rule.name} must be a rule of one gradient such as sgd or adamw, not {getattr(base, 'name', base)}",
    )
    require(
        not getattr(base, "stablemax", False),
        f"stablemax goes with a rule that asks itself: it counts for nothing within {rule.name}",
    )


def require_rate(name: str, lr: float) -> None:
    """Raises UserError for a learning rate that cannot be."""
    require(0 <= lr < 1e6, f"lr of {name} must be a number from 0 up, not {lr}")
