"""Claim C11: augmentation chooses a scope. How far a lesson reaches that is taught by one scope's events alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from crevasse.errors import UserError
from crevasse.lessons.apply import TRAINING, Lesson, Training, around, learn
from crevasse.lessons.policy import Policies, approaches
from crevasse.lessons.scopes import NOTHING, describe, mask, scopes, thesis_scopes
from crevasse.lessons.world import Event, World
from crevasse.seeds import seed_for
from crevasse.spec import require

#: The probability of bad in a policy to which nothing bad has happened yet.
CALM = 0.02


def calm(world: World, seed: int, training: Training) -> Policies:
    """One policy that has learnt from events of all kinds that hardly any is bad; it approaches all."""
    policies = Policies(world, 1, seed_for(seed, "weights"))
    rng = np.random.default_rng(seed_for(seed, "calm days"))
    rows = rng.integers(world.size, size=(1, training.memory_steps, training.batch))
    policies.fit(rows, np.full(rows.shape, CALM), training.memory_rate)
    return policies


def reach(
    world: World,
    event: Event,
    seed: int = 0,
    training: Training = TRAINING,
    replay: Sequence[bool] = (False, True),
) -> list[dict[str, Any]]:
    """Teach each scope that holds the event, by batches of its events with the outcome bad, from the same policy.

    With replay, half of each batch are events that happen as well, half of them from around the incident, half from
    anywhere; their target is what the policy said, 1 within the scope. A row for each scope and both:

    thesis: the scope's number there, or None; events: how many it holds; jaccard: the events whose decision changed
    against those of the scope, shared / in either; covered: the share of the scope that changed; spilled: the share of
    all other events that did. Raises UserError where no sort of replay is asked for.
    """
    require(len(replay) > 0, "reach is measured with replay, without, or both")
    start = calm(world, seed, training)
    old = start.bad()[0]
    candidates = scopes(world, event)[1:]
    try:
        numbers = {scope: i for i, scope in enumerate(thesis_scopes(world, event)) if scope != NOTHING}
    except UserError:
        numbers = {}
    masks = np.stack([mask(world, scope) for scope in candidates])
    other = 0.5 * around(world, world.index(event)) + 0.5 / world.size
    rows = []
    for replayed in replay:
        share = 0.5 if replayed else 0.0
        taught = [Lesson(held / held.sum(), np.ones(world.size), np.where(held, 1.0, old), share) for held in masks]
        said = learn(start, taught, other, training, seed).bad()
        changed = approaches(old) & ~approaches(said)
        rows += [
            {
                "scope": describe(world, scope), "thesis": numbers.get(scope), "replay": replayed,
                "events": int(held.sum()), "jaccard": float((held & flips).sum() / (held | flips).sum()),
                "covered": float(flips[held].mean()), "spilled": float(flips[~held].mean()) if not held.all() else 0.0,
            }
            for scope, held, flips in zip(candidates, masks, changed, strict=True)
        ]  # fmt: skip
    return rows
