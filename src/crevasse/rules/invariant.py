"""Invariances are looked for in the training data, and examples are moved along those that hold there."""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar

import torch
from torch import Tensor

from crevasse.rules.base import State, Step, Update, inner, joined, own
from crevasse.rules.changes import MOST_PLACES, Change, Tally
from crevasse.rules.layout import Layout
from crevasse.rules.oracle import Ask, Asking, Oracle
from crevasse.rules.transform import Around
from crevasse.spec import require


def candidates(places: int) -> tuple[Change, ...]:
    """What is tried on problems of at most so many values: nobody says which of it holds.

    Any order of all values, or of two; the values read backwards; two shifted against each other, or together; one
    shifted, and the answer with it or against it. To shift is to know that values have an order around the modulus,
    which is given with the candidates.
    """
    pairs, several = list(combinations(range(places), 2)), places > 2
    return (
        Change("order"),
        *(Change("order", pair) for pair in pairs if several),
        *[Change("reversal")] * several,
        *(Change("shift", pair, (1, way)) for pair in pairs for way in (-1, 1)),
        *(Change("shift", (place,), (1,), way) for place in range(places) for way in (-1, 1)),
    )


def holds(tally: Tally, nats: float) -> bool:
    """Does a change keep answers more often than halfway between chance and always? nats: of evidence, at least.

    By the bound of Chernoff 1952: of n facts with probability r each, a share q > r or more is true with a
    probability of at most exp(−n·KL(q‖r)).
    """
    halfway = (1 + tally.chance) / 2
    if tally.facts == 0 or halfway >= 1 or (q := tally.agreed / tally.facts) <= halfway:
        return False
    wrong = (1 - q) * math.log((1 - q) / (1 - halfway)) if q < 1 else 0.0
    return tally.facts * (q * math.log(q / halfway) + wrong) > nats


@dataclass(frozen=True)
class Invariant(Around):
    """The base rule on examples moved at random along the invariances that the training examples themselves show.

    Proposed here, to be refuted. Before the first step each candidate (`candidates`) is held against the training set:
    problems that it leads to one another either have the answers that it says, or not. It is adopted where they do more
    often than halfway between chance and always, at a significance of alpha over the number of candidates (`holds`),
    and where it leads to no value that never stands in its place. Then each example of a batch is replaced in each step
    by a random one of those that the adopted changes make of it. No weights take part in the choice, as a network that
    memorises says nothing of it; nothing steers, and nothing that is held out is looked at. Which candidates there are
    is given; which of them hold is found, and told in the notes of the result. An adopted change may lead to problems
    that are held out: that is what it is to have found it.

    Costs the passes of the base, as a changed example takes the place of its own, and the time to change them; the
    comparison goes once through the training set for each candidate, without the model. Not for problems other than up
    to 12 values of one token each with an answer of one token; not where so few problems are known that none is a
    change of another, as then nothing is adopted; and not where more than a quarter of the labels are wrong, as then
    one pair in two disagrees.
    """

    name: ClassVar[str] = "invariant"

    alpha: float = 0.01  # chance that one is adopted that agrees in half of the cases; 0: the base rule

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.alpha < 1, f"alpha of {self.name} is a probability, from 0 to below 1, not {self.alpha}")

    @property
    def changes(self) -> bool:
        return self.alpha > 0

    def remember(self, weights: Tensor, layout: Layout) -> State:
        there = weights.new_zeros((), dtype=torch.int64)
        return {
            "places": there,  # values of the longest problem; 0: nothing was looked for
            "adopted": there.new_zeros(len(candidates(MOST_PLACES))).bool(),  # of so many candidates, in their order
        }

    def adopted(self, state: State) -> tuple[Change, ...]:
        """The changes that were found to hold; of orders none that another one includes."""
        every = candidates(int(state["places"]))
        found = [c for c, is_in in zip(every, state["adopted"].tolist(), strict=False) if is_in]
        return tuple(c for c in found if found[0] != Change("order") or c.kind == "shift" or c == found[0])

    def told(self, state: State) -> tuple[str, ...]:
        if not int(state["places"]):
            return ()
        found = "; ".join(map(str, self.adopted(state))) or "none"
        return (f"invariances found in the training examples: {found}",)

    def found(self, places: int) -> Asking[Tensor]:
        """Which candidates hold. (candidate,) bool, filled up to those of the longest problems"""
        every = candidates(places)
        nats = math.log(len(every) / self.alpha)
        found = torch.zeros(len(candidates(MOST_PLACES)), dtype=torch.bool)
        for i, change in enumerate(every):
            seen = yield Ask(tally=change)
            assert seen.tally is not None
            found[i] = holds(seen.tally, nats)
        return found

    def update(self, oracle: Oracle, weights: Tensor, state: State, step: Step) -> Asking[Update]:
        mine = own(state)
        if self.changes and oracle.places and not int(mine["places"]):
            adopted = yield from self.found(oracle.places)
            mine |= {"places": mine["places"] + oracle.places, "adopted": adopted.to(weights.device)}
        seen = yield Ask(changes=self.adopted(mine))
        assert seen.gradients is not None
        moved, base = self.base.apply(seen.gradients[0], weights, inner(state), step)
        return Update(moved, joined(mine, base), seen.losses[0])
