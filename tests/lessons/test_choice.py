"""The posterior against Bayes' rule in fractions, its limits, its calibration, and judges."""

import itertools
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from crevasse.errors import UserError
from crevasse.lessons.causes import KINDS, Kind, Odds, live
from crevasse.lessons.choice import Posterior, Prior, experienced, habit_of, lesson_of, posterior, shortest
from crevasse.lessons.judge import EndpointJudge, judged
from crevasse.lessons.scopes import NOTHING, Scope, mask, shape_of

NONE = np.array([], dtype=np.int64), np.array([], dtype=bool)


def chance_of(scope: tuple[str, str]) -> Fraction:
    """The tiny world's code: named or not; place: level of two, then cafe/C or A/B/C; companion: X/Y."""
    place = {"any": Fraction(1, 2), "cafe": Fraction(1, 8), "A": Fraction(1, 12), "B": Fraction(1, 12)}
    place["C"] = Fraction(1, 8) + Fraction(1, 12)  # it stands at both levels
    companion = {"any": Fraction(1, 2), "X": Fraction(1, 4), "Y": Fraction(1, 4)}
    return Fraction(1, 2) * place[scope[0]] * companion[scope[1]]


EVERY_SCOPE = [*itertools.product(("any", "cafe", "A", "B", "C"), ("any", "X", "Y"))]


def test_the_shortest_code_is_complete(tiny):
    assert Fraction(1, 2) + sum(map(chance_of, EVERY_SCOPE)) == 1
    ours = shortest(tiny)
    believed = Posterior(tiny, 0, ours.nothing, ours.of(tiny))
    assert {s: believed.share(Scope(s)) for s in EVERY_SCOPE} == pytest.approx(
        {s: float(chance_of(s)) for s in EVERY_SCOPE}
    )
    assert ours.nothing == 0.5 and believed.shares.size == len(EVERY_SCOPE)


@pytest.mark.parametrize("incidents", [["A X"], ["C Y"], ["A X", "B X"], ["B Y", "C Y", "B X"]])
def test_the_posterior_is_bayes_rule(tiny, incidents):
    q, b = Fraction(9, 10), Fraction(1, 20)
    kinds = {
        "A": {"any", "cafe", "A"},
        "B": {"any", "cafe", "B"},
        "C": {"any", "C"},
        "X": {"any", "X"},
        "Y": {"any", "Y"},
    }
    habit = {"A": Fraction(1, 2), "B": Fraction(1, 3), "C": Fraction(1, 6), "X": Fraction(1, 4), "Y": Fraction(3, 4)}
    memory = [("A Y", False), ("B X", True), ("B Y", False), ("C X", False), ("B X", True)]

    def bad(event, scope):
        inside = scope and all(node in kinds[v] for node, v in zip(scope, event.split(), strict=True))
        return q if inside else b

    def met(event):
        return math.prod(habit[v] for v in event.split())

    every = [f"{place} {companion}" for place in "ABC" for companion in "XY"]
    weights = []
    for scope in [None, *EVERY_SCOPE]:
        weight = chance_of(scope) if scope else Fraction(1, 2)
        for event in incidents:
            weight *= met(event) * bad(event, scope) / sum(met(e) * bad(e, scope) for e in every)
        for event, was_bad in memory:
            weight *= bad(event, scope) if was_bad else 1 - bad(event, scope)
        weights.append((scope or (), weight))
    total = sum(w for _, w in weights)
    expected = {scope: float(w / total) for scope, w in weights}

    def number(event):
        return tiny.index(tiny.event(dict(zip(("place", "companion"), event.split(), strict=True))))

    shares = [np.array([float(habit[v]) for v in a.values]) for a in tiny.attributes]
    ours = posterior(
        tiny, [number(e) for e in incidents], np.array([number(e) for e, _ in memory]),
        np.array([was_bad for _, was_bad in memory]), shortest(tiny), Odds(0.9, 0.05), shares,
    )  # fmt: skip
    assert {s: ours.share(Scope(s)) for s in expected} == pytest.approx(expected)
    best = max(expected, key=expected.get)
    assert ours.best == Scope(best)
    possible = [
        s for s in expected if not s or all(n in kinds[v] for n, v in zip(s, incidents[0].split(), strict=True))
    ]
    assert [s.nodes for s in ours.top(99)] == sorted(possible, key=expected.get, reverse=True)


def test_what_is_contained_and_imagined_is_the_mixture_of_the_scopes(tiny):
    shares = np.random.default_rng(0).dirichlet(np.ones(16))
    believed = Posterior(tiny, 0, shares[0], shares[1:].reshape(5, 3))
    masks = {s: mask(tiny, Scope(s)) for s in EVERY_SCOPE}
    assert believed.contains() == pytest.approx(sum(believed.share(Scope(s)) * m for s, m in masks.items()))
    assert believed.imagined() == pytest.approx(sum(believed.share(Scope(s)) * m / m.sum() for s, m in masks.items()))
    assert believed.imagined().sum() == pytest.approx(1 - believed.nothing)


def test_of_all_scopes_that_hold_the_incidents_the_smallest_wins_in_the_end(restaurant, incident):
    """Each incident raises the odds of a scope over one around it by the ratio of their masses (size principle)."""
    names = ["place", "day", "hour", "companion"]
    values = [a.values[v] for a, v in zip(restaurant.attributes, incident, strict=True)]
    rng = np.random.default_rng(0)
    with_francois = [restaurant.index(incident)]
    for _ in range(25):
        others = [a.values[rng.integers(len(a.values))] for a in restaurant.attributes[:3]]
        with_francois.append(restaurant.index(restaurant.event(dict(zip(names, [*others, values[3]], strict=True)))))
    flat = [np.full(n, 1 / n) for n in restaurant.shape]
    odds = Odds(0.9, 0.05)

    def believed(n):
        return posterior(restaurant, with_francois[:n], *NONE, shortest(restaurant), odds, flat)

    assert believed(26).best.nodes == ("any", "any", "any", "Francois")
    everyone, he = (Scope(("any", "any", "any", who)) for who in ("person", "Francois"))
    ratios = [believed(n).share(he) / believed(n).share(everyone) for n in (1, 2, 3)]
    bad = [odds.within * h + odds.elsewhere * (1 - h) for h in (7 / 8, 1 / 8)]
    assert ratios[1] / ratios[0] == pytest.approx(bad[0] / bad[1]) == pytest.approx(ratios[2] / ratios[1])


def test_where_bad_is_chance_no_lesson_gains(restaurant):
    prior = shortest(restaurant)
    lives = [live(restaurant, seed, (Kind("chance", 1.0, {}),)) for seed in range(20)]
    shares = {n: np.mean([lesson_of(life, n, prior).nothing for life in lives]) for n in (1, 3, 10)}
    assert prior.nothing < shares[1] < shares[3] < shares[10] and shares[10] > 0.8


def test_the_posterior_is_calibrated_where_its_prior_is_true(restaurant):
    """The best scope is the cause as often as it says."""
    shapes = np.zeros(restaurant.levels)
    for kind in KINDS[1:]:
        shapes[shape_of(restaurant, kind.named)] += kind.weight
    prior = Prior(KINDS[0].weight, shapes)
    said, right = [], []
    for seed in range(250):
        life = live(restaurant, seed, remembered=30)
        believed = posterior(restaurant, life.incidents[:2], life.memory, life.bad, prior, life.odds, life.habit)
        said.append(believed.share(believed.best))
        right.append(believed.best == life.cause)
    said, right = np.array(said), np.array(right)
    assert 0.3 < said.mean() < 0.9  # neither sure nor ignorant
    assert abs((said - right).mean()) < 3 * np.sqrt((said * (1 - said)).sum()) / len(said)


def test_experience_learns_what_lessons_are_like(restaurant):
    only = (Kind("person", 1.0, {"companion": 3}),)
    prior = experienced(restaurant, 40, 0, only)
    assert prior.nothing + prior.shapes.sum() == pytest.approx(1)
    assert np.unravel_index(prior.shapes.argmax(), prior.shapes.shape) == (0, 0, 0, 3)
    assert prior.shapes[0, 0, 0, 3] > 5 * shortest(restaurant).shapes[0, 0, 0, 3]


def test_habit_is_smoothed_frequencies(tiny):
    place, companion = habit_of(tiny, np.array([0, 0, 2]))  # C X, C X, A X
    assert place == pytest.approx(np.array([2.5, 1.5, 0.5]) / 4.5) and companion == pytest.approx([3.5 / 4, 0.5 / 4])


def says(text, tokens=7):
    return (
        200,
        {},
        json.dumps({"choices": [{"message": {"content": text}}], "usage": {"total_tokens": tokens}}).encode(),
    )


def test_an_opinion_moves_the_odds_by_three(restaurant, endpoint):
    url, answers, asked = endpoint
    believed = lesson_of(live(restaurant, 5), 1, shortest(restaurant))
    judge = EndpointJudge(f"{url}/v1", "small", key="secret")
    answers.append(says(" 2, 3. "))
    moved = judged(believed, judge)
    top = believed.top(6)
    assert NOTHING in top  # it can be chosen, or lose, like any other
    factor = [moved.share(scope) / believed.share(scope) for scope in top]
    assert factor[1:3] == pytest.approx([3 * factor[0]] * 2) and factor[3:] == pytest.approx([factor[0]] * 3)
    assert moved.nothing + moved.shares.sum() == pytest.approx(1)
    assert "secret" not in repr(judge)
    path, headers, sent = asked[0]
    body = json.loads(sent)
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret" and body["model"] == "small"
    words = json.dumps(restaurant.words(restaurant.at(believed.incident)))
    assert words in body["messages"][1]["content"] and "\n6. " in body["messages"][1]["content"]
    assert (judge.cost.calls, judge.cost.failed, judge.cost.silent, judge.cost.tokens) == (1, 0, 0, 7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (says("0"), 0), (says("7"), 0), (says("2, 99"), 0), (says("-1"), 0), (says("I think 2"), 0), (says(""), 0),
        (says("٢"), 0), (says(None), 0), (says(2), 0), (says("2\n" * 9), 0),
        (says("__import__('os')"), 0),
        ((200, {}, b"<html>"), 1), ((200, {}, b"[]"), 1), ((200, {}, b"{}"), 1), ((200, {}, b'{"choices": []}'), 1),
        ((200, {}, b"\xff"), 1),
        ((200, {}, b'{"choices": [{"message": {"content": "1' + b" " * 1_000_000), 1), ((200, {}, b"[" * 100_000), 1),
        ((500, {}, b"no"), 1), ((404, {}, b""), 1),
    ],
)  # fmt: skip
def test_nonsense_is_no_opinion_and_counted(restaurant, endpoint, answer, failed):
    url, answers, _ = endpoint
    believed = lesson_of(live(restaurant, 5), 1, shortest(restaurant))
    judge = EndpointJudge(url, "small")
    answers.append(answer)
    assert judged(believed, judge).shares == pytest.approx(believed.shares)
    assert (judge.cost.calls, judge.cost.failed, judge.cost.silent) == (1, failed, 1)


def test_judges_that_cannot_be(restaurant):
    believed = lesson_of(live(restaurant, 5), 1, shortest(restaurant))
    unreached = EndpointJudge("http://127.0.0.1:9", "small", timeout=1)
    assert judged(believed, unreached).shares == pytest.approx(believed.shares)
    assert unreached.cost.failed == unreached.cost.silent == 1
    for url in ("file:///etc/passwd", "127.0.0.1", "http://"):
        with pytest.raises(UserError, match="http"):
            EndpointJudge(url, "small")
    with pytest.raises(UserError, match="odds"):
        judged(believed, unreached, odds=0.5)

    class Wild:
        def choose(self, incident, candidates):
            return (99,)

    assert judged(believed, Wild()).shares == pytest.approx(believed.shares)
