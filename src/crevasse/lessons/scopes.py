"""How far a lesson reaches: sets of events, one node of the kinds per attribute."""

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from crevasse.errors import UserError
from crevasse.lessons.world import ROOT, Bools, Event, Ints, World
from crevasse.spec import require

#: Levels, one per attribute, the root 0: what scopes of different events have in common.
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Scope:
    """All events that are, in each attribute, of the kind `nodes`. Without nodes it is no event at all: no lesson."""

    nodes: tuple[str, ...]


NOTHING = Scope(())

#: Scopes 1 to 9 of the thesis by what they name: levels counted from the root, what is not named is "any".
THESIS: tuple[Mapping[str, int], ...] = (
    {"place": 4, "day": 2, "hour": 2, "companion": 3},  # this very IHOP at 1 pm on Saturdays with Francois
    {"place": 3, "day": 2, "hour": 2, "companion": 3},  # all IHOPs at 1 pm on Saturdays with Francois
    {"place": 3},  # all IHOPs, always, with anybody
    {"place": 2},  # all pancake restaurants
    {"place": 1},  # all restaurants
    {"day": 2, "hour": 2, "companion": 3},  # Francois at 1 pm on Saturdays, anywhere
    {"companion": 3},  # Francois, always
    {"companion": 2},  # all people of his group
    {"companion": 1},  # all people
)


def shape_of(world: World, named: Mapping[str, int]) -> Shape:
    """Levels by attribute to a shape. Raises UserError where the world has no such attribute."""
    names = [a.name for a in world.attributes]
    for name in named:
        require(name in names, f"this world has no attribute {name!r} (there are: {', '.join(names)})")
    return tuple(named.get(name, 0) for name in names)


def scope_at(world: World, event: Event, shape: Shape) -> Scope:
    """The scope of this shape that holds the event."""
    return Scope(tuple(a.node(v, level) for a, v, level in zip(world.attributes, event, shape, strict=True)))


def lattice(world: World, event: Event) -> tuple[int, ...]:
    """Levels that the event's own values have, per attribute: how many scopes hold it in each direction."""
    return tuple(len(a.paths[value]) for a, value in zip(world.attributes, event, strict=True))


def scopes(world: World, event: Event) -> tuple[Scope, ...]:
    """No lesson, and then every scope that holds the event, from all events to the event alone."""
    shapes = itertools.product(*map(range, lattice(world, event)))
    return (NOTHING, *(scope_at(world, event, shape) for shape in shapes))


def thesis_scopes(world: World, event: Event) -> tuple[Scope, ...]:
    """The ten scopes of the thesis, numbered as there. Raises UserError for a world without its four attributes."""
    return (NOTHING, *(scope_at(world, event, shape_of(world, named)) for named in THESIS))


def mask(world: World, scope: Scope) -> Bools:
    """Which events the scope holds: (event,)."""
    if scope == NOTHING:
        return np.zeros(world.size, dtype=bool)
    members = [a.members[node] for a, node in zip(world.attributes, scope.nodes, strict=True)]
    return functools.reduce(np.logical_and.outer, members).ravel()


def finer(world: World, a: Scope, b: Scope) -> bool:
    """Whether `a` is `b` or below it: each of its kinds is of the kind of `b`. No lesson is below all."""
    if NOTHING in (a, b):
        return a == NOTHING
    return all(
        any(below in path and kind in path[: path.index(below) + 1] for path in attribute.paths)
        for attribute, below, kind in zip(world.attributes, a.nodes, b.nodes, strict=True)
    )


def draw(world: World, scope: Scope, count: int, rng: np.random.Generator) -> Ints:
    """Augmentation: numbers of events, drawn uniformly from the scope. Raises UserError for no lesson."""
    if scope == NOTHING:
        raise UserError("no lesson holds no events to draw")
    return rng.choice(np.flatnonzero(mask(world, scope)), count)


def describe(world: World, scope: Scope) -> str:
    """In words, such as "Francois, always and everywhere"."""
    if scope == NOTHING:
        return "no lesson"
    kinds = dict(zip((a.name for a in world.attributes), scope.nodes, strict=True))
    open_ = [name for name, node in kinds.items() if node == ROOT]
    named = [node for node in kinds.values() if node != ROOT]
    always = ["always"] if {"day", "hour"} <= {*open_} else []
    words = {"place": ["everywhere"], "companion": ["with anybody"], "day": [], "hour": []}
    rest = always + [word for name in open_ for word in words.get(name, [f"any {name}"])]
    return ", ".join([*named, " and ".join(rest)] if rest else named)
