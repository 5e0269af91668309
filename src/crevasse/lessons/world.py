"""What can happen: events of several attributes, and the kinds that each of their values is of."""

import functools
import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crevasse.errors import UserError, unknown
from crevasse.spec import require

#: What all values of an attribute are.
ROOT = "any"
#: All events are looked at one by one.
MOST_EVENTS = 20_000

#: For each attribute of a world the number of its value.
Event = tuple[int, ...]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Attribute:
    """A tree of kinds. `paths` holds for each value, a leaf, its kinds from the root down to itself.

    Levels count from the root: "any" is level 0. A value that is less deep than a level stands there for itself.
    """

    name: str
    paths: tuple[tuple[str, ...], ...]

    @functools.cached_property
    def values(self) -> tuple[str, ...]:
        return tuple(path[-1] for path in self.paths)

    @functools.cached_property
    def levels(self) -> int:
        """How many levels the deepest value has, the root counted."""
        return max(map(len, self.paths))

    @functools.cached_property
    def members(self) -> dict[str, Bools]:
        """For each node whether a value is of that kind: (value,)."""
        nodes = dict.fromkeys(itertools.chain(*self.paths))
        return {node: np.array([node in path for path in self.paths]) for node in nodes}

    @functools.cached_property
    def held(self) -> Floats:
        """`members` as numbers: (node, value)."""
        return np.stack([*self.members.values()]).astype(np.float64)

    @functools.cached_property
    def spread(self) -> Floats:
        """The probability of each node where one of a level's is drawn: (node, level)."""
        levels = [self.nodes(level) for level in range(self.levels)]
        return np.array([[(node in nodes) / len(nodes) for nodes in levels] for node in self.members])

    def node(self, value: int, level: int) -> str:
        path = self.paths[value]
        return path[min(level, len(path) - 1)]

    def nodes(self, level: int) -> tuple[str, ...]:
        """The different nodes of a level; together they cover every value once."""
        return tuple(dict.fromkeys(self.node(value, level) for value in range(len(self.paths))))


@dataclass(frozen=True)
class World:
    """Attributes, and all events: every value of the first with every one of the others, the last changing fastest."""

    attributes: tuple[Attribute, ...]

    @functools.cached_property
    def shape(self) -> tuple[int, ...]:
        """Values per attribute."""
        return tuple(len(a.values) for a in self.attributes)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @functools.cached_property
    def levels(self) -> tuple[int, ...]:
        return tuple(a.levels for a in self.attributes)

    @functools.cached_property
    def events(self) -> Ints:
        """(event, attribute) -> number of the value."""
        return np.stack(np.unravel_index(np.arange(self.size), self.shape), axis=1)

    @functools.cached_property
    def one_hot(self) -> NDArray[np.float32]:
        """(event, value of any attribute): a one for each attribute."""
        starts = np.cumsum([0, *self.shape[:-1]])
        table = np.zeros((self.size, sum(self.shape)), dtype=np.float32)
        np.put_along_axis(table, self.events + starts, 1.0, axis=1)
        return table

    def index(self, event: Event) -> int:
        return int(np.ravel_multi_index(event, self.shape))

    def at(self, index: int) -> Event:
        """The inverse of `index`."""
        return tuple(int(value) for value in self.events[index])

    def event(self, values: Mapping[str, str]) -> Event:
        """From one value per attribute. Raises UserError for one that is unknown, or missing."""
        names = [a.name for a in self.attributes]
        for name in values:
            if name not in names:
                raise unknown("attribute", name, names)
        for a in self.attributes:
            require(a.name in values, f"an event needs a value of each attribute; {a.name} has none")
            if values[a.name] not in a.values:
                raise unknown(a.name, values[a.name], a.values)
        return tuple(a.values.index(values[a.name]) for a in self.attributes)

    def words(self, event: Event) -> str:
        return ", ".join(a.values[value] for a, value in zip(self.attributes, event, strict=True))


def default_world() -> World:
    """The thesis' restaurant: place, day, hour and companion."""
    return load_world(Path(__file__).with_name("restaurant.toml"))


def load_world(path: Path | str) -> World:
    """Read a world that somebody wrote: a TOML table ``kind = [kinds, ...]`` for each attribute, "any" above all.

    Raises UserError for a file that cannot be read or is no TOML, for kinds that go in a circle, have two parents or
    do not begin at "any", and for more than 20,000 events.
    """
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from None
    except (ValueError, RecursionError) as e:  # no TOML, no UTF-8
        raise UserError(f"{path} is damaged: it is not TOML ({e})") from None
    require(bool(tables), f"{path} is empty (a world is a table of kinds for each attribute)")
    try:
        world = World(tuple(_attribute(name, table) for name, table in tables.items()))
    except UserError as e:
        raise UserError(f"{path}: {e}") from None
    require(world.size <= MOST_EVENTS, f"{path} has {world.size:,} events; at most {MOST_EVENTS:,} can be looked at")
    return world


def _attribute(name: str, table: object) -> Attribute:
    require(isinstance(table, dict) and bool(table), f"{name} must be a table of kinds, kind = [kinds, ...]")
    assert isinstance(table, dict)
    parents: dict[str, str] = {}
    for kind, kinds in table.items():
        plain = isinstance(kinds, list) and all(isinstance(k, str) and k.isprintable() and k for k in kinds)
        require(plain and bool(kinds), f"{name}.{kind} must be a list of names, with at least one")
        for child in kinds:
            require(child not in parents, f"{name}: {child!r} is of two kinds, {parents.get(child)!r} and {kind!r}")
            parents[child] = kind
    values = [child for child in parents if child not in table]
    for kind in [*table, *values]:
        seen = [*_upwards(kind, parents)]
        require(seen[-1] == ROOT, f"{name}: {seen[-1]!r} is of no kind (write it below {ROOT!r})")
    return Attribute(name, tuple(tuple(reversed([*_upwards(value, parents)])) for value in values))


def _upwards(kind: str, parents: Mapping[str, str]) -> Iterator[str]:
    seen = [kind]
    yield kind
    while kind in parents:
        kind = parents[kind]
        if kind in seen:
            raise UserError(f"kinds go in a circle: {' < '.join([*seen[seen.index(kind) :], kind])}")
        seen.append(kind)
        yield kind
