"""Single lives in words that a person can follow, chosen before anything is known of how they end."""

import json
from typing import Any

import numpy as np

from crevasse.lessons.apply import learn, lesson, remember, replay_of
from crevasse.lessons.causes import Life, live
from crevasse.lessons.choice import Posterior, Prior, experienced, lesson_of
from crevasse.lessons.policy import approaches
from crevasse.lessons.regret import measures
from crevasse.lessons.scopes import NOTHING, THESIS, Scope, describe, mask, scope_at, scopes, shape_of
from crevasse.lessons.world import Bools, World
from crevasse.seeds import seed_for
from crevasse.studies.lessons.lives import FIRST, STORIES, Plan, kinds_of, methods_of, note
from crevasse.studies.measures import Measure

Story = dict[str, Any]

#: Of each of these kinds of cause the first life that is drawn; in a world of one's own the first three kinds.
CHOSEN = ("person", "kind of place", "chance")
#: What a story is told by.
STORY = frozenset(
    ("kind", "cause", "events", "world", "met", "incidents", "remembered", "bad", "memory", "avoided_before", "steps")
)
#: Incidents after which is told.
TOLD = (1, 3)
#: Lessons that are told with their shares.
TOP = 3
#: From this Jaccard index on what is avoided is told as a scope, else as something near it.
NEAR = 0.9


def stories(world: World, plan: Plan) -> list[Measure]:
    """One row a story, its label the story as JSON."""
    kinds = kinds_of(world)
    names = [k.name for k in kinds]
    chosen = CHOSEN if {*CHOSEN} <= {*names} else tuple(names[:3])
    prior = experienced(world, plan.experience, seed_for(FIRST, "others"), kinds)
    found: dict[str, Life] = {}
    number = 0
    while len(found) < len(chosen):
        life = live(world, seed_for(FIRST, f"story {number}"), kinds)
        number += 1
        if life.kind in chosen:
            found.setdefault(life.kind, life)
    told = [_tell(found[kind], i, prior, plan) for i, kind in enumerate(chosen)]
    return [note(STORIES, "story", json.dumps(story, ensure_ascii=False), None, x=i) for i, story in enumerate(told)]


def _tell(life: Life, number: int, prior: Prior, plan: Plan) -> Story:
    world = life.world
    seed = seed_for(FIRST, f"story {life.kind}")
    start = remember(world, [life], seed, plan.training)
    old = start.bad()[0]
    before = approaches(old)
    steps = []
    for n in TOLD:
        believed = lesson_of(life, n, prior)
        methods = [m for m in methods_of(world) if m != "nothing"]
        taught = [lesson(m, life, n, old, prior, believed) for m in methods]
        said = learn(start, taught, replay_of(life), plan.training, seed).bad()
        ends = []
        for method, bad in zip(methods, said, strict=True):
            after = approaches(bad)
            ends.append({
                "method": method, "concluded": _concluded(method, life, n, believed),
                "newly": int((before & ~after).sum()), "no_longer": int((~before & after).sum()),
                **_avoids(life, ~after), **measures(life, before, after),
            })  # fmt: skip
        steps.append(
            {
                "incidents": n,
                "believed": [[describe(world, s), believed.share(s)] for s in believed.top(TOP)],
                "ends": ends,
            }
        )
    return {
        "kind": life.kind,
        "cause": describe(world, life.cause),
        "events": int(mask(world, life.cause).sum()),
        "world": world.size,
        "met": [bool(mask(world, life.cause)[e]) for e in life.incidents[: max(TOLD)]],
        "incidents": [world.words(world.at(int(e))) for e in life.incidents[: max(TOLD)]],
        "remembered": len(life.memory),
        "bad": int(life.bad.sum()),
        "memory": _remembered(life),
        "avoided_before": int((~before).sum()),
        "steps": steps,
    }


def _remembered(life: Life) -> list[list[Any]]:
    """Of the first incident's own values: how often each was met before, and how often that was bad."""
    world, first = life.world, life.world.at(int(life.incidents[0]))
    found = []
    for i, (a, value) in enumerate(zip(world.attributes, first, strict=True)):
        met = world.events[life.memory, i] == value
        found.append([a.values[value], int(met.sum()), int(life.bad[met].sum())])
    return found


def _concluded(method: str, life: Life, n: int, believed: Posterior) -> str:
    """What the lesson of a method was about, in words."""
    world = life.world
    if method.startswith("augment-"):
        shape = shape_of(world, THESIS[int(method.removeprefix("augment-")) - 1])
        met = [scope_at(world, world.at(int(e)), shape) for e in life.incidents[:n]]
        return "; or ".join(dict.fromkeys(describe(world, s) for s in met))
    if method == "map":
        return describe(world, believed.best)
    if method == "oracle":
        return describe(world, life.cause)
    if method == "common-sense":
        return f"{describe(world, believed.best)} ({believed.share(believed.best):.0%}), and the rest by its share"
    return "the very event" if n == 1 else f"these {n} very events"


def _avoids(life: Life, avoided: Bools) -> Story:
    """What a policy avoids: how many events, and the scope that is nearest to them by the Jaccard index, of those that
    hold one of the incidents and of the cause."""
    world, count = life.world, int(avoided.sum())
    if not count:
        return {"avoided": 0, "nearest": describe(world, NOTHING), "near": 1.0}
    candidates: dict[Scope, None] = {}
    for event in dict.fromkeys(int(e) for e in life.incidents[: max(TOLD)]):
        candidates |= dict.fromkeys(scopes(world, world.at(event))[1:])
    candidates[life.cause] = None
    masks = np.stack([mask(world, scope) for scope in candidates])
    shared = (masks & avoided).sum(1) / (masks | avoided).sum(1)
    best = int(np.argmax(shared))
    return {"avoided": count, "nearest": describe(world, [*candidates][best]), "near": float(shared[best])}
