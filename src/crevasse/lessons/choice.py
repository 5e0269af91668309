"""Which scope a lesson has: the posterior over all scopes of a world, and no lesson.

    share(s)  ∝  prior(s) · Π_i p(e_i | bad, s) · Π_m p(outcome_m | e_m, s)

An incident is an event that is met by habit and was bad, so that a small scope explains it better than a large one
(the size principle of Tenenbaum and Griffiths 2001, here with noise):

    p(e | bad, s) = habit(e) p(bad | e, s) / Σ_e' habit(e') p(bad | e', s),    p(bad | e, s) = within or elsewhere

What is remembered says how often such events were bad (Bernoulli). The learner knows the odds and the kinds of the
world; how often it meets what, it estimates from its memory. Scopes that do not hold the incident are thought of too:
what has happened may have been chance and the cause elsewhere, and without them a scope that does hold it would have to
explain what is remembered of others.

Arrays over scopes have an axis per attribute, along which its nodes lie: a scope is a product, so that whatever is a
sum over events or over scopes is worked out one attribute at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crevasse.lessons.causes import KINDS, ODDS, Kind, Life, Odds, live, product
from crevasse.lessons.scopes import NOTHING, Scope
from crevasse.lessons.world import Bools, Floats, Ints, World
from crevasse.seeds import seed_for

#: Times that each value of an attribute counts as met before anything was.
SMOOTHING = 0.5
#: How many lessons the shortest code is worth as a prior of shapes.
CONCENTRATION = 10.0


def along(matrices: Sequence[Floats], array: Floats) -> Floats:
    """Multiply each axis of an array by a matrix of its own, (new, old)."""
    for matrix in matrices:
        array = np.tensordot(array, matrix, axes=(0, 1))  # the first axis goes, its successor comes last
    return array


@dataclass(frozen=True)
class Prior:
    """What lessons are like: the probability of none, and of each shape (levels of the first attribute, of the second,
    ...). Within a shape, every combination of nodes is as likely."""

    nothing: float
    shapes: Floats

    def of(self, world: World) -> Floats:
        """The probability of each scope, (node, ...); with `nothing` they add up to 1."""
        return along([a.spread for a in world.attributes], self.shapes)


def shortest(world: World) -> Prior:
    """2^-bits of an explicit code. One bit: is there a lesson? Then for each attribute one bit: is it named? If so,
    its level in log2(levels below the root) bits, and the node in log2(nodes of that level) bits.

    The code is complete: over all scopes and no lesson the probabilities add up to 1.
    """
    levels = [np.array([1.0] if n == 1 else [0.5] + [0.5 / (n - 1)] * (n - 1)) for n in world.levels]
    return Prior(0.5, 0.5 * product(levels).reshape(world.levels))


@dataclass(frozen=True)
class Posterior:
    """What the lesson may be. nothing: the share of no lesson; shares: of each scope, (node, ...). They add up to 1."""

    world: World
    incident: int
    nothing: float
    shares: Floats

    def scope(self, index: int) -> Scope:
        """By its place in the flattened shares."""
        at = np.unravel_index(index, self.shares.shape)
        return Scope(tuple([*a.members][i] for a, i in zip(self.world.attributes, at, strict=True)))

    def share(self, scope: Scope) -> float:
        return self.nothing if scope == NOTHING else float(self.shares[self.place(scope)])

    def place(self, scope: Scope) -> tuple[int, ...]:
        """The place of a scope in the shares."""
        return tuple([*a.members].index(node) for a, node in zip(self.world.attributes, scope.nodes, strict=True))

    @property
    def best(self) -> Scope:
        at = int(np.argmax(self.shares))
        return self.scope(at) if self.shares.flat[at] > self.nothing else NOTHING

    def top(self, count: int) -> list[Scope]:
        """The most probable of the lessons that this incident can be part of, and of no lesson."""
        value = self.world.at(self.incident)
        held = product([a.held[:, v] for a, v in zip(self.world.attributes, value, strict=True)])
        shares = self.shares.ravel() * held
        order = np.argsort(-shares, kind="stable")[: min(count, int(held.sum()))]
        found = [(float(shares[i]), self.scope(int(i))) for i in order]
        found.insert(sum(share >= self.nothing for share, _ in found), (self.nothing, NOTHING))
        return [scope for _, scope in found[:count]]

    def contains(self) -> Floats:
        """The probability that the lesson's scope holds an event: (event,)."""
        return along([a.held.T for a in self.world.attributes], self.shares).ravel()

    def imagined(self) -> Floats:
        """How often an event is drawn where a scope is drawn by its share and an event from it uniformly, (event,).
        Adds up to the probability that there is a lesson."""
        uniform = [(a.held / a.held.sum(1, keepdims=True)).T for a in self.world.attributes]
        return along(uniform, self.shares).ravel()


def habit_of(world: World, memory: Ints) -> tuple[Floats, ...]:
    """How often each value is met, estimated from the events that were: smoothed shares per attribute."""
    met = world.events[memory].T
    counts = [np.bincount(v, minlength=n) + SMOOTHING for v, n in zip(met, world.shape, strict=True)]
    return tuple(c / c.sum() for c in counts)


def posterior(
    world: World,
    incidents: Sequence[int] | Ints,
    memory: Ints,
    bad: Bools,
    prior: Prior,
    odds: Odds,
    habit: Sequence[Floats] | None = None,
) -> Posterior:
    """The posterior after some incidents; a scope that does not hold them is merely unlikely.

    incidents: numbers of one event or more; memory, bad: (event met,); habit: shares per attribute, by default
    `habit_of` the memory.
    """
    held = [a.held for a in world.attributes]
    habit = habit_of(world, memory) if habit is None else habit

    def within(events: Sequence[int] | Ints) -> Floats:
        """How many of the events each scope holds."""
        counts = np.bincount(np.asarray(events, dtype=np.int64), minlength=world.size)
        return along(held, counts.reshape(world.shape).astype(np.float64))

    mass = product([m @ h for m, h in zip(held, habit, strict=True)]).reshape([len(m) for m in held])
    lift = odds.within / odds.elsewhere
    # Each term is that of the scope less that of no lesson, to which all events are elsewhere.
    log = within(incidents) * np.log(lift) - len(incidents) * np.log(mass * lift + 1 - mass)
    log += within(memory[bad]) * np.log(lift)
    log += within(memory[~bad]) * np.log((1 - odds.within) / (1 - odds.elsewhere))
    top = max(log.max(), 0.0)
    shares, nothing = prior.of(world) * np.exp(log - top), prior.nothing * np.exp(-top)
    total = shares.sum() + nothing
    return Posterior(world, int(incidents[0]), float(nothing / total), shares / total)


def experienced(
    world: World,
    lessons: int,
    seed: int,
    kinds: Sequence[Kind] = KINDS,
    odds: Odds = ODDS,
) -> Prior:
    """What a learner takes lessons to be like after some of them, in other lives, each with ten incidents.

    A Dirichlet distribution over shapes and none, its mean at first the shortest code's. After each lesson its
    posterior is added to the counts; the truth is never told.
    """
    base = shortest(world)
    counts = np.array([base.nothing, *base.shapes.ravel()]) * CONCENTRATION
    prior = base
    for i in range(lessons):
        life = live(world, seed_for(seed, f"experience {i}"), kinds, odds)
        believed = posterior(world, life.incidents, life.memory, life.bad, prior, odds)
        counts += _by_shape(world, believed)
        mean = counts / counts.sum()
        prior = Prior(float(mean[0]), mean[1:].reshape(world.levels))
    return prior


def _by_shape(world: World, believed: Posterior) -> Floats:
    """Shares by shape, (1 + shapes,): a node is counted at its own level."""
    levels = []
    for a in world.attributes:
        own = [next(path.index(node) for path in a.paths if node in path) for node in a.members]
        levels.append(np.eye(a.levels)[own].T)
    return np.array([believed.nothing, *along(levels, believed.shares).ravel()])


def lesson_of(life: Life, incidents: int, prior: Prior) -> Posterior:
    """The posterior of a life after its first incidents."""
    return posterior(life.world, life.incidents[:incidents], life.memory, life.bad, prior, life.odds)
