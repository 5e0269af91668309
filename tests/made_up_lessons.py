"""Measures of the study of lessons as they could have come out."""

import json
from typing import Any

import numpy as np

from crevasse.lessons.apply import METHODS
from crevasse.lessons.regret import AFTER
from crevasse.lessons.scopes import describe, mask, scopes, thesis_scopes
from crevasse.lessons.world import default_world
from crevasse.studies.claims.augmentation import WAYS, Augmentation, thesis_incident
from crevasse.studies.lessons.lives import CALIBRATION, LIVES, STORIES, note
from crevasse.studies.lessons.study import PLANS
from crevasse.studies.measures import Measure


def lives(budget: str, gap: float, fixed: float, false: float) -> list[Measure]:
    """Every life gains between 1 and 2 from an oracle; half of them are of pure chance, and a share `false` of these
    draws a lesson. gap, fixed: what the common-sense gradient and every fixed augmentation close."""
    rng = np.random.default_rng(0)
    count = PLANS[budget].blocks * PLANS[budget].lives
    closed = {"nothing": 0.0, "oracle": 1.0, "common-sense": gap, "map": 0.4, "sgd": -1.0, "sgd+replay": 0.2}
    found = []
    for life in range(count):
        gain, chance = rng.uniform(1, 2), life % 2
        wrong = float(chance and life // 2 < false * (count // 2))
        for n in AFTER:
            for method in METHODS:
                utility = gain * closed.get(method, fixed)
                values = {"utility": utility, "regret": gain - utility, "over": rng.uniform(0, 0.3),
                          "under": rng.uniform(0, 0.1), "disturbed": 0.01, "false": wrong}  # fmt: skip
                found += [note(LIVES, name, method, v, x=n, seed=life) for name, v in values.items()]
            own = {"chance": float(chance), "found": 0.5, "no lesson": 0.1}
            found += [note(LIVES, name, "", v, x=n, seed=life) for name, v in own.items()]
    return found


def calibration() -> list[Measure]:
    """Two blocks; each bin holds as many events, and is right but for a tenth."""
    return [
        note(CALIBRATION, name, str(n), value, x=bin_, seed=block)
        for n in AFTER for block in range(2) for bin_ in range(10)
        for name, value in (("said", bin_ / 10 + 0.05), ("true", bin_ / 10 + 0.1 * block), ("weight", 0.1))
    ]  # fmt: skip


def story(**changed: Any) -> dict[str, Any]:
    end = {"method": "common-sense", "concluded": "Francois", "avoided": 1000, "nearest": "Francois, always",
           "near": 0.95, "newly": 900, "no_longer": 0, "over": 0.02, "under": 0.0}  # fmt: skip
    ends = [end, end | {"method": "sgd", "near": 0.3}, end | {"method": "augment-7", "newly": 0, "over": 0.2}]
    believed = [["Francois, always", 0.9], ["no lesson", 0.1]]
    return {
        "kind": "person", "cause": "Francois, always", "events": 672, "world": 5376, "met": [True, True, False],
        "incidents": ["park, 1 pm", "park, 6 pm", "IHOP, 1 pm"], "remembered": 200, "bad": 9, "avoided_before": 1,
        "memory": [["park", 20, 1], ["Francois", 1, 1]],
        "steps": [{"incidents": n, "believed": believed, "ends": ends} for n in (1, 3)],
    } | changed  # fmt: skip


def reach(alone: float, replay: float, seeds: int = 2) -> list[Measure]:
    """C11's measures: all scopes have these Jaccard indices, and everything is avoided by whoever has less than 1."""
    world, claim = default_world(), Augmentation()
    event = thesis_incident(world)
    numbers = {scope: i for i, scope in enumerate(thesis_scopes(world, event))}
    every = [(s, describe(world, s), float(mask(world, s).sum())) for s in scopes(world, event)[1:]]
    found = []
    for seed in range(seeds):
        for way, jaccard in zip(WAYS, (alone, replay), strict=True):
            for x, (scope, label, events) in enumerate(every, 1):
                values = {"jaccard": jaccard, "covered": 1.0, "spilled": float(jaccard < 1), "events": events,
                          "changed": events / world.size if jaccard == 1 else 1.0,
                          "thesis": numbers.get(scope)}  # fmt: skip
                found += [claim.note(f"{name}, {way}", label, v, x=x, seed=seed) for name, v in values.items()]
    return found


def measures(
    budget: str = "smoke", *, gap: float = 0.95, fixed: float = 0.5, false: float = 0.0, told: Any = None
) -> list[Measure]:
    """All that the study measures."""
    stories = [note(STORIES, "story", json.dumps(s), None, x=i) for i, s in enumerate(told or [story()] * 3)]
    return [*reach(0.1, 1.0), *stories, *lives(budget, gap, fixed, false), *calibration()]
