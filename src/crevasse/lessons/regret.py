"""What lessons are worth: utility, regret and reach in lives whose cause is known, by looking at all events."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from crevasse.lessons.apply import METHODS, TRAINING, Training, learn, lesson, remember, replay_of
from crevasse.lessons.causes import KINDS, ODDS, Kind, Life, Odds, live, product
from crevasse.lessons.choice import Posterior, Prior, experienced, lesson_of, shortest
from crevasse.lessons.judge import Judge, judged
from crevasse.lessons.policy import BAD, GOOD, Policies, approaches
from crevasse.lessons.scopes import NOTHING, describe, mask
from crevasse.lessons.world import Bools, Floats, World
from crevasse.seeds import seed_for
from crevasse.spec import require

Row = dict[str, Any]

#: Incidents after which is measured.
AFTER = (1, 2, 3, 5, 10)
#: A lesson that avoids more of the vicinity than this, where there is none to learn, is a false one.
FALSE = 0.02
#: A judge that failed so many times, and never did not, is not asked again.
DEAF = 5


def vicinity(life: Life) -> Floats:
    """Events around the first incident: each attribute keeps its value with probability 1/2, else habit: (event,)."""
    kept = life.world.at(int(life.incidents[0]))
    return product([0.5 * np.eye(len(h))[v] + 0.5 * h for v, h in zip(kept, life.habit, strict=True)])


def utility(life: Life, approached: Bools, weight: Floats) -> float:
    """What is expected of a meeting: GOOD or BAD where it is approached, 0 where it is not."""
    return float(weight @ (approached * (GOOD + life.chances * (BAD - GOOD))))


def measures(life: Life, before: Bools, after: Bools) -> Row:
    """What a policy does by what it approached `before` a lesson and `after` it: (event,) each.

    Weighted by how likely an event is to be met, half in the habitual life, half in the vicinity of the incident:
    utility, regret against the best decisions, over (avoided outside of the cause), under (approached within it).
    disturbed: the share of all events outside of the cause whose decision changed. false: how much of the vicinity is
    newly avoided.
    """
    near = vicinity(life)
    weight = 0.5 * product(life.habit) + 0.5 * near
    cause = mask(life.world, life.cause)
    best = utility(life, approaches(life.chances), weight)
    worth = utility(life, after, weight)
    return {
        "utility": worth,
        "regret": best - worth,
        "over": float(weight @ (~cause & ~after)),
        "under": float(weight @ (cause & after)),
        "disturbed": float((before != after)[~cause].mean()) if not cause.all() else 0.0,
        "false": float(near @ (before & ~after)),
    }


def run_worlds(
    world: World,
    n_worlds: int,
    seed: int,
    methods: Sequence[str] = tuple(METHODS),
    after: Sequence[int] = AFTER,
    kinds: Sequence[Kind] = KINDS,
    odds: Odds = ODDS,
    training: Training = TRAINING,
    lessons: int = 200,
    remembered: int = 200,
    judge: Judge | None = None,
    asked: int = 20,
) -> list[Row]:
    """A row for each life, method and number of incidents: `measures`, and what was believed.

    lessons: how many the learner has drawn in other lives (0: its prior is the shortest code). remembered: events that
    it remembers of this one. judge: with one, the first `asked` lives have the method "judged" too, which is
    common-sense with the judge's opinion in the posterior; its rows tell under "cost" what the opinion cost, and
    compare with the other methods' of these lives alone. Raises UserError for no lives, an unknown method or numbers of
    incidents beyond ten.
    """
    require(n_worlds > 0, "at least one world is needed")
    require(all(1 <= n <= 10 for n in after), f"incidents are 1 to 10, not {[*after]}")
    prior = experienced(world, lessons, seed_for(seed, "others"), kinds, odds) if lessons else shortest(world)
    lives = [live(world, seed_for(seed, f"world {i}"), kinds, odds, remembered) for i in range(n_worlds)]
    policies = remember(world, lives, seed, training)
    rows = []
    for i, life in enumerate(lives):
        own = seed_for(seed, f"lessons {i}")
        rows += [
            {"world": i, **row}
            for row in _of_life(
                life, policies.take([i]), prior, methods, after, training, own, judge if i < asked else None
            )
        ]
    return rows


def _of_life(
    life: Life,
    start: Policies,
    prior: Prior,
    methods: Sequence[str],
    after: Sequence[int],
    training: Training,
    seed: int,
    judge: Judge | None,
) -> list[Row]:
    old = start.bad()[0]
    before = approaches(old)

    def rows_of(asked: Sequence[tuple[str, str, int, Posterior]]) -> list[Row]:
        """asked: names, the methods that they are, incidents, and beliefs."""
        taught = [lesson(method, life, n, old, prior, believed) for _, method, n, believed in asked]
        said = learn(start, taught, replay_of(life), training, seed).bad()
        rows = []
        for (name, method, n, believed), now in zip(asked, said, strict=True):
            decided = before if method == "nothing" else approaches(now)
            rows.append({
                "method": name, "n": n, "kind": life.kind, "cause": describe(life.world, life.cause),
                "chance": life.cause == NOTHING, "met": bool(mask(life.world, life.cause)[life.incidents[0]]),
                "best": describe(life.world, believed.best), "found": believed.best == life.cause,
                "nothing": believed.nothing, **measures(life, before, decided),
            })  # fmt: skip
        return rows

    own = {n: lesson_of(life, n, prior) for n in after}
    rows = rows_of([(method, method, n, own[n]) for method in methods for n in after])
    if judge is not None:  # apart from the others, whose numbers a larger stack might change in the last bit
        opinions = [_opinion(own[n], judge) for n in after]
        more = rows_of([("judged", "common-sense", n, o) for n, (o, _) in zip(after, opinions, strict=True)])
        rows += [row | {"cost": cost} for row, (_, cost) in zip(more, opinions, strict=True)]
    return rows


def _opinion(believed: Posterior, judge: Judge) -> tuple[Posterior, dict[str, float]]:
    """The posterior with a judge's opinion in it, and what that cost. Raises UserError for one that always fails."""
    before = dataclasses.replace(judge.cost)
    opinion = judged(believed, judge)
    calls = judge.cost.calls
    require(calls < DEAF or judge.cost.failed < calls, f"the judge was asked {calls} times and never answered")
    return opinion, judge.cost.since(before)


def gap_closed(rows: Sequence[Row], method: str, n: int) -> float:
    """How much of what an oracle gains over learning nothing the method gains, after n incidents: the ratio of the two
    means over the lives that have the method, (U − U_nothing) / (U_oracle − U_nothing)."""
    lives = {r["world"] for r in rows if r["method"] == method}
    mean = {
        m: np.mean([r["utility"] for r in rows if r["method"] == m and r["n"] == n and r["world"] in lives])
        for m in (method, "nothing", "oracle")
    }
    return float((mean[method] - mean["nothing"]) / (mean["oracle"] - mean["nothing"]))


def false_lessons(rows: Sequence[Row], method: str, n: int) -> float:
    """The share of lives where bad was pure chance, in which a lesson was drawn nevertheless; nan without any."""
    false = [r["false"] > FALSE for r in rows if r["method"] == method and r["n"] == n and r["chance"]]
    return float(np.mean(false)) if false else float("nan")


def calibration(lives: Sequence[Life], believed: Sequence[Posterior], bins: int = 10) -> list[Row]:
    """Reliability of "the lesson's scope holds this event": a row per bin of that probability that is not empty, with
    its number, the mean probability, how often the cause does hold the event, and the share of all weight. Events count
    by the vicinity of the incident."""
    weight, said, true = (np.zeros(bins) for _ in range(3))
    for life, posterior in zip(lives, believed, strict=True):
        near, m = vicinity(life), posterior.contains()
        at = np.minimum((m * bins).astype(np.int64), bins - 1)
        weight += np.bincount(at, near, bins)
        said += np.bincount(at, near * m, bins)
        true += np.bincount(at, near * mask(life.world, life.cause), bins)
    return [
        {"bin": int(i), "said": said[i] / weight[i], "true": true[i] / weight[i], "weight": weight[i] / weight.sum()}
        for i in np.flatnonzero(weight)
    ]
