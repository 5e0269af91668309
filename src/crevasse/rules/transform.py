"""Rules that stand around a base rule, or before it."""

from dataclasses import dataclass

from torch import Tensor

from crevasse.rules.adamw import AdamW
from crevasse.rules.base import BaseRule, Rule, State, Step, inner, joined, own, require_base
from crevasse.rules.layout import Layout


@dataclass(frozen=True)
class Around(Rule):
    """A rule that hands what it found to a base rule, whose state is kept beside its own."""

    base: BaseRule = AdamW()

    def __post_init__(self) -> None:
        require_base(self, self.base)

    def remember(self, weights: Tensor, layout: Layout) -> State:
        """Its own state before the first step, without the base's."""
        return {}

    def init(self, weights: Tensor, layout: Layout) -> State:
        return joined(self.remember(weights, layout), self.base.init(weights, layout))

    def judged(self, weights: Tensor, state: State) -> Tensor:
        return self.base.judged(weights, inner(state))


@dataclass(frozen=True)
class Transform(Around, BaseRule):
    """A base rule with another gradient before it, or other weights after it. Costs the passes of its base."""

    def before(self, gradient: Tensor, weights: Tensor, own: State, step: Step) -> Tensor:
        """The gradient that the base is given. own: its own state, in which entries may be replaced or changed."""
        return gradient

    def after(self, moved: Tensor, weights: Tensor, own: State, step: Step) -> Tensor:
        """The new weights, of those that the base moved to (which may be changed in place) and those before."""
        return moved

    def apply(self, gradient: Tensor, weights: Tensor, state: State, step: Step) -> tuple[Tensor, State]:
        mine = own(state)
        gradient = self.before(gradient, weights, mine, step)
        moved, base = self.base.apply(gradient, weights, inner(state), step)
        moved = self.after(moved, weights, mine, step)
        return moved, joined(mine, base)

    def rate(self, step: Step) -> float | Tensor:
        return self.base.rate(step)
