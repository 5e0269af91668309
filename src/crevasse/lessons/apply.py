"""What a policy learns from incidents, by each way to choose how far they reach.

All ways start from the same policy and take the same number of steps with the same batch. What differs is where the
rows of a batch are drawn from, and their targets. For most of them

    target(e) = m(e) within + (1 − m(e)) p_old(e)

with m(e) the probability that the lesson's scope holds the event e, p_old what the policy said before. Half of a batch
is imagined, drawn from the scopes; half is replay. Where no scope holds an event its target is what the policy said
already: outside of the lesson nothing is to move.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from crevasse.errors import unknown
from crevasse.lessons.causes import Life, product
from crevasse.lessons.choice import Posterior, Prior, habit_of, lesson_of
from crevasse.lessons.policy import Policies
from crevasse.lessons.scopes import NOTHING, THESIS, Scope, mask, scope_at, shape_of
from crevasse.lessons.world import Floats, Ints, World
from crevasse.seeds import seed_for

#: The ways to learn, and what is done in each of them.
METHODS = {
    "nothing": "the policy stays as it was",
    "sgd": "batches of the incidents alone, their target 1",
    "sgd+replay": "half of each batch the incidents, target 1, half replay, target p_old",
    **{f"augment-{i}": f"scope {i} of the thesis around each incident, m(e) = 1 in any of them" for i in range(1, 10)},
    "map": "the most probable scope alone, m(e) = 1 in it",
    "common-sense": "the posterior over scopes, m(e) = Σ share(s) [e in s]",
    "oracle": "the true cause, m(e) = 1 in it",
}


@dataclass(frozen=True)
class Training:
    """How a policy is trained."""

    steps: int = 150
    batch: int = 64
    rate: float = 0.05
    #: Of the first training, on what is remembered.
    memory_steps: int = 150
    memory_rate: float = 0.01
    memory_decay: float = 0.1


TRAINING = Training()


def remember(world: World, lives: Sequence[Life], seed: int, training: Training) -> Policies:
    """A policy for each life, trained on what is remembered and how it ended."""
    policies = Policies(world, len(lives), seed_for(seed, "weights"))
    rng = np.random.default_rng(seed_for(seed, "batches of memory"))
    shape = (training.memory_steps, training.batch)
    drawn = [rng.integers(len(life.memory), size=shape) for life in lives]
    rows = np.stack([life.memory[d] for life, d in zip(lives, drawn, strict=True)])
    bad = np.stack([life.bad[d] for life, d in zip(lives, drawn, strict=True)])
    policies.fit(rows, bad.astype(np.float64), training.memory_rate, training.memory_decay)
    return policies


@dataclass(frozen=True)
class Lesson:
    """One policy's batches: which events are imagined, how often, and with which targets.

    imagined: (event,), adding up to 1, or to 0 where there is no lesson; wanted, kept: the targets of imagined and of
    replayed events (event,); replay: the share of a batch that is replay.
    """

    imagined: Floats
    wanted: Floats
    kept: Floats
    replay: float = 0.5


def lesson(
    method: str, life: Life, incidents: int, old: Floats, prior: Prior, believed: Posterior | None = None
) -> Lesson:
    """What a method makes of the first incidents. old: (event,) what the policy says. Raises UserError for an unknown
    method.

    believed: the posterior, by default that of the prior (a judge's opinion may be in it).
    """
    world, events = life.world, life.incidents[:incidents]
    seen = np.bincount(events, minlength=world.size) / incidents
    if method == "sgd":
        return Lesson(seen, np.ones(world.size), old, replay=0.0)
    if method == "sgd+replay":
        return Lesson(seen, np.ones(world.size), old)
    if method == "oracle":
        return _of_scopes(life, [life.cause], old)
    if method == "nothing":
        return _of_scopes(life, [NOTHING], old)
    if method.startswith("augment-") and method in METHODS:
        shape = shape_of(world, THESIS[int(method.removeprefix("augment-")) - 1])
        return _of_scopes(life, [scope_at(world, world.at(int(e)), shape) for e in events], old)
    believed = believed or lesson_of(life, incidents, prior)
    if method == "map":
        return _of_scopes(life, [believed.best], old)
    if method == "common-sense":
        imagined, m = believed.imagined(), believed.contains()
        return _mixed(life, imagined / max(imagined.sum(), 1e-12), m, old)
    raise unknown("method", method, METHODS)


def _of_scopes(life: Life, scopes: Sequence[Scope], old: Floats) -> Lesson:
    """Sure of all of these scopes."""
    masks = np.stack([mask(life.world, scope) for scope in scopes])
    sizes = np.maximum(masks.sum(1), 1)
    return _mixed(life, (masks / sizes[:, None]).mean(0), np.asarray(masks.any(0), dtype=np.float64), old)


def _mixed(life: Life, imagined: Floats, m: Floats, old: Floats) -> Lesson:
    target = m * life.odds.within + (1 - m) * old
    return Lesson(imagined, target, target)


def replay_of(life: Life) -> Floats:
    """Where replay is drawn from, (event,): a third by the habit that the memory shows, a third from around the first
    incident, and a third from all events."""
    world = life.world
    everywhere = np.full(world.size, 1 / world.size)
    weight: Floats = product(habit_of(world, life.memory)) + around(world, int(life.incidents[0])) + everywhere
    return weight / 3


def around(world: World, event: int) -> Floats:
    """Events around one: each attribute keeps its value with probability 1/2, else it is any: (event,)."""
    return product([0.5 * np.eye(n)[v] + 0.5 / n for v, n in zip(world.at(event), world.shape, strict=True)])


def batches(
    lessons: Sequence[Lesson], replay: Floats, training: Training, rng: np.random.Generator
) -> tuple[Ints, Floats]:
    """Rows and targets, (lesson, step, row), for `Policies.fit`. replay: weights of events, (event,).

    Lessons share the random numbers: they differ by what is made of them alone.
    """
    shape = (training.steps, training.batch)
    u = rng.random(shape)
    rows = np.empty((len(lessons), *shape), dtype=np.int64)
    targets = np.empty(rows.shape)
    for i, taught in enumerate(lessons):
        split = round(training.batch * (taught.replay if taught.imagined.any() else 1.0))
        rows[i, :, :split] = _by(replay, u[:, :split])
        rows[i, :, split:] = _by(taught.imagined, u[:, split:])
        targets[i, :, :split] = taught.kept[rows[i, :, :split]]
        targets[i, :, split:] = taught.wanted[rows[i, :, split:]]
    return rows, targets


def _by(weights: Floats, u: Floats) -> Ints:
    """Events drawn by weight from uniform numbers, by the inverse of the distribution function."""
    total = np.cumsum(weights)
    # A number that rounds up to the end would fall behind the last event that has weight.
    last = int(np.flatnonzero(weights)[-1]) if weights.any() else 0
    drawn: Ints = np.minimum(np.searchsorted(total, u * total[-1], side="right"), last)
    return drawn


def learn(start: Policies, lessons: Sequence[Lesson], replay: Floats, training: Training, seed: int) -> Policies:
    """A policy for each lesson, all from the one policy `start`."""
    policies = start.take([0] * len(lessons))
    rng = np.random.default_rng(seed_for(seed, "batches of lessons"))
    policies.fit(*batches(lessons, replay, training, rng), rate=training.rate)
    return policies
