"""Lives whose bad incidents have a known cause, or none: what a learner's lesson can be held against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from crevasse.lessons.scopes import NOTHING, Scope, mask, shape_of
from crevasse.lessons.world import Bools, Floats, Ints, World
from crevasse.seeds import seed_for

#: Incidents of a life, the first of them the one that asks for a lesson.
INCIDENTS = 10


@dataclass(frozen=True)
class Kind:
    """A kind of cause: which attributes it names, at which level from the root. Nothing named is pure chance."""

    name: str
    weight: float
    named: Mapping[str, int]


#: What causes are in the restaurant's world: mostly people and places, now and then both, or a time.
KINDS = (
    Kind("chance", 0.20, {}),
    Kind("person", 0.16, {"companion": 3}),
    Kind("group", 0.10, {"companion": 2}),
    Kind("place", 0.08, {"place": 4}),
    Kind("brand", 0.12, {"place": 3}),
    Kind("kind of place", 0.10, {"place": 2}),
    Kind("person at a kind of place", 0.08, {"place": 2, "companion": 3}),
    Kind("brand at a time", 0.08, {"place": 3, "hour": 1}),
    Kind("person at weekends", 0.06, {"day": 1, "companion": 3}),
    Kind("this very event", 0.02, {"place": 4, "day": 2, "hour": 2, "companion": 3}),
)


@dataclass(frozen=True)
class Odds:
    """How likely an event is bad within the cause, and elsewhere."""

    within: float = 0.9
    elsewhere: float = 0.01


ODDS = Odds()


@dataclass(frozen=True)
class Life:
    """One person's life in a world.

    habit: for each attribute how often its values are met, (value,); memory, bad: numbers of the events that were met
    before the first incident, and whether they were bad, (event met,); incidents: (10,) numbers of events.
    """

    world: World
    kind: str
    cause: Scope
    odds: Odds
    habit: tuple[Floats, ...]
    memory: Ints
    bad: Bools
    incidents: Ints

    @property
    def chances(self) -> Floats:
        """The probability that an event is bad: (event,)."""
        return np.where(mask(self.world, self.cause), self.odds.within, self.odds.elsewhere)


def live(world: World, seed: int, kinds: Sequence[Kind] = KINDS, odds: Odds = ODDS, remembered: int = 200) -> Life:
    """Draw a life.

    The kind of cause is drawn by weight, and of its level any node, however rarely this person meets it: a cause that
    is common in the life has left its traces in the memory, a rare one has left none, be it for or against. The
    memory is life under that same cause: events drawn by habit, bad with the cause's odds. Incidents are further
    events that were bad: drawn by habit times probability of bad. So any of them, the first too, may be chance.

    Habits differ from attribute to attribute only: value number i of an order of this person's own has the weight
    1/i, so that half of a life is spent at three of sixteen places.
    """
    rng = np.random.default_rng(seed_for(seed, "life"))
    weights = np.array([kind.weight for kind in kinds])
    kind = kinds[rng.choice(len(kinds), p=weights / weights.sum())]
    shape = shape_of(world, kind.named)
    cause = NOTHING
    if kind.named:
        nodes = [a.nodes(level) for a, level in zip(world.attributes, shape, strict=True)]
        cause = Scope(tuple(str(rng.choice(level)) for level in nodes))
    habit = tuple(rng.permutation(1 / np.arange(1, n + 1)) for n in world.shape)
    habit = tuple(shares / shares.sum() for shares in habit)
    chances = np.where(mask(world, cause), odds.within, odds.elsewhere)
    met = product(habit)
    memory = rng.choice(world.size, remembered, p=met)
    bad = rng.random(remembered) < chances[memory]
    incidents = rng.choice(world.size, INCIDENTS, p=met * chances / (met @ chances))
    return Life(world, kind.name, cause, odds, habit, memory, bad, incidents)


def product(shares: Sequence[Floats]) -> Floats:
    """Independent shares of each attribute's values to shares of all events: (event,)."""
    whole = np.ones(1)
    for part in shares:
        whole = np.outer(whole, part).ravel()
    return whole
