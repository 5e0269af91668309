"""Changes of examples that may leave their answers, or change them in a way that is known.

An example is a row of values with an answer, all of them numbers from 0 up to a modulus. What they stand for nobody
says. A change is a group of transformations of such rows; the examples that it makes of one another are an orbit.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

#: Values of a problem at most, for changes to be looked for.
MOST_PLACES = 12


@dataclass(frozen=True)
class Change:
    """Some places in any order; all read backwards; or some values and the answer shifted, around the modulus."""

    kind: Literal["order", "reversal", "shift"]
    places: tuple[int, ...] = ()  # which it moves, counted from 0; none: all there are
    steps: tuple[int, ...] = ()  # of a shift: how far each of them goes, times the same number; the first goes 1
    answer: int = 0  # and how far the answer goes, times that number

    def __post_init__(self) -> None:
        if len(set(self.places)) != len(self.places) or min(self.places, default=0) < 0:
            raise ValueError(f"{self.places} are not places, each once")
        if self.kind != "shift" and (self.steps or self.answer):
            raise ValueError(f"{self.kind} shifts nothing")
        if self.kind == "shift" and (len(self.steps) != len(self.places) or self.steps[:1] != (1,)):
            raise ValueError(f"a shift says how far each place goes, the first 1: not {self.steps} for {self.places}")

    def __str__(self) -> str:
        where = " and ".join(str(place + 1) for place in self.places)
        if self.kind == "order":
            return f"values {where} in any order" if where else "values in any order"
        if self.kind == "reversal":
            return "values read backwards"
        moved = [f"value {p + 1} {s:+d}" for p, s in zip(self.places, self.steps, strict=True)]
        return ", ".join([*moved, *([f"answer {self.answer:+d}"] if self.answer else [])])


@dataclass(frozen=True)
class Tally:
    """How a change compares with the known answers."""

    facts: int  # of each orbit, the examples known but one
    agreed: int  # of these, how many have the answer that the change makes of the one before
    chance: float  # that two random examples have the same answer


@dataclass(frozen=True)
class Values:
    """Examples as rows of values."""

    x: Tensor  # (row, place) int64, the modulus where a row has no such place
    answers: Tensor  # (row,) int64
    modulus: int

    @property
    def there(self) -> Tensor:
        """(row, place) bool: the row has such a place."""
        return self.x < self.modulus

    @cached_property
    def different(self) -> "Values":
        """Each problem once, in an order that says nothing of their values."""
        order, same = _sorted(self.x)
        rows = order[torch.cat([torch.ones(1, dtype=torch.bool), ~same])[: len(order)]]
        rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        return Values(self.x[rows], self.answers[rows], self.modulus)

    def closed(self, change: Change) -> bool:
        """Can a change lead to nothing that never occurs there? The places it moves take the same values; what is
        shifted, the answer too, takes all there are."""
        places = change.places or range(self.x.shape[1])
        taken = [set(self.x[:, p].tolist()) - {self.modulus} for p in places]
        if change.kind != "shift":
            return all(values == taken[0] for values in taken)
        shifted = [*taken, *([set(self.answers.tolist())] if change.answer else [])]
        return all(len(values) == self.modulus for values in shifted)

    def canonical(self, change: Change) -> "Values":
        """Of each row's orbit always the same one: sorted, the smaller of two, or with the first shifted place at 0."""
        if change.kind == "order":
            return self._ordered(change, self.x)
        if change.kind == "reversal":
            ahead = self.x - self._reversed
            first = (ahead != 0).int().argmax(1, keepdim=True)
            return self._turned(ahead.gather(1, first)[:, 0] > 0)
        return self._shifted(change, -self.x[:, change.places[0]])

    def drawn(self, change: Change, generator: torch.Generator) -> "Values":
        """Of each row's orbit a random one."""
        if change.kind == "order":
            return self._ordered(change, torch.rand(self.x.shape, generator=generator))
        if change.kind == "reversal":
            return self._turned(torch.rand(len(self.x), generator=generator) < 0.5)
        return self._shifted(change, torch.randint(self.modulus, (len(self.x),), generator=generator))

    def tally(self, change: Change) -> Tally:
        """Of different problems that lead to one another, do the answers do so too?

        Each is compared with another of its orbit at random, the one before it in a random order: neighbours by value
        would agree wherever answers vary slowly. There are no facts of a change that is not `closed`.
        """
        shares = self.answers.bincount() / len(self.answers)
        chance = float(shares @ shares)
        if not self.closed(change):
            return Tally(0, 0, chance)
        same = self.different.canonical(change)
        order, facts = _sorted(same.x)
        agreed = facts & (same.answers[order].diff() == 0)
        return Tally(int(facts.sum()), int(agreed.sum()), chance)

    def _ordered(self, change: Change, keys: Tensor) -> "Values":
        """The named places by ascending keys (row, place); what is not there stays at the end."""
        places = torch.tensor(change.places or range(self.x.shape[1]))
        keys = torch.where(self.there, keys.double(), torch.inf)[:, places]
        x = self.x.clone()
        x[:, places] = self.x[:, places].gather(1, keys.argsort(dim=1, stable=True))
        return replace(self, x=x)

    @property
    def _reversed(self) -> Tensor:
        place, length = torch.arange(self.x.shape[1]), self.there.sum(1, keepdim=True)
        return self.x.gather(1, torch.where(self.there, length - 1 - place, place))

    def _turned(self, chosen: Tensor) -> "Values":
        """Chosen rows (row,) bool backwards."""
        return replace(self, x=torch.where(chosen[:, None], self._reversed, self.x))

    def _shifted(self, change: Change, times: Tensor) -> "Values":
        """Shifted so many times (row,), where a row has all the places."""
        places = torch.tensor(change.places)
        times = torch.where(self.there[:, places].all(1), times, 0)
        moved = (self.x[:, places] + times[:, None] * torch.tensor(change.steps)) % self.modulus
        x = self.x.clone()
        x[:, places] = torch.where(self.there[:, places], moved, self.x[:, places])
        return replace(self, x=x, answers=(self.answers + times * change.answer) % self.modulus)


def _sorted(x: Tensor) -> tuple[Tensor, Tensor]:
    """The order that brings equal rows of x (row, place) together, each as they stood, and whether a row of that order
    equals the one before, from the second on."""
    order = torch.from_numpy(np.lexsort(x.numpy().T[::-1]))
    return order, (x[order].diff(dim=0) == 0).all(1)
