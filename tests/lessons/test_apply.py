"""Policies against torch alone, updates against their formula, measures against loops over all events."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from crevasse.errors import UserError
from crevasse.lessons.apply import METHODS, Lesson, Training, around, batches, learn, lesson, remember
from crevasse.lessons.causes import INCIDENTS, Kind, Life, Odds, live
from crevasse.lessons.choice import lesson_of, shortest
from crevasse.lessons.policy import BAD, GOOD, TOGETHER, Policies, approaches
from crevasse.lessons.reach import reach
from crevasse.lessons.regret import calibration, false_lessons, gap_closed, measures, run_worlds, vicinity
from crevasse.lessons.scopes import NOTHING, Scope, mask

QUICK = Training(steps=40, memory_steps=40)


def alone(policies: Policies, i: int) -> nn.Sequential:
    """The same network by torch's own layers."""
    first, bias, second, last = (p[i] for p in policies.parameters)
    net = nn.Sequential(nn.Linear(*first.shape), nn.ReLU(), nn.Linear(*second.shape))
    with torch.no_grad():
        for own, value in zip(net.parameters(), (first.T, bias[0], second.T, last[0]), strict=True):
            own.copy_(value)
    return net


def test_a_stack_trains_as_each_network_does_by_itself(tiny):
    count = TOGETHER + 2  # two groups
    policies = Policies(tiny, count, seed=1, width=8)
    rng = np.random.default_rng(0)
    rows, targets = rng.integers(6, size=(count, 12, 5)), rng.random((count, 12, 5))
    nets = {i: alone(policies, i) for i in (0, 1, count - 1)}
    policies.fit(rows, targets, rate=0.05, decay=0.1)
    for i, net in nets.items():
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.05, weight_decay=0.1)
        falls = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 12)
        for step in range(12):
            logits = net(torch.from_numpy(tiny.one_hot[rows[i, step]]))[:, 0]
            loss = nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(targets[i, step]).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            falls.step()
        with torch.no_grad():
            expected = net(torch.from_numpy(tiny.one_hot)).sigmoid()[:, 0].double().numpy()
        assert policies.bad()[i] == pytest.approx(expected, abs=1e-5)


def test_copies_go_their_own_way(tiny):
    start = Policies(tiny, 2, seed=0)
    before = start.bad()
    copies = start.take([1, 1, 0])
    copies.fit(np.zeros((3, 5, 4), dtype=np.int64), np.ones((3, 5, 4)), rate=0.1)
    assert (start.bad() == before).all()
    assert (copies.bad()[0] == copies.bad()[1]).all() and not np.allclose(copies.bad()[0], before[1])


def test_an_event_is_approached_where_that_is_worth_it():
    p = np.array([0.0, 0.19, 0.21, 1.0])
    assert (approaches(p) == (p * BAD + (1 - p) * GOOD > 0)).all()


def test_a_life_is_what_it_says(restaurant):
    """Outcomes of the memory and incidents have the odds of the cause, over many lives."""
    lives = [live(restaurant, seed, (Kind("brand", 1.0, {"place": 3}),)) for seed in range(300)]
    inside = np.concatenate([mask(restaurant, life.cause)[life.memory] for life in lives])
    bad = np.concatenate([life.bad for life in lives])
    assert bad[inside].mean() == pytest.approx(0.9, abs=0.02) and bad[~inside].mean() == pytest.approx(0.01, abs=0.005)
    # Incidents within the cause: q h / (q h + b (1 − h)), with h by the habit.
    held = [mask(restaurant, life.cause) for life in lives]
    h = np.array([float(life.habit[0] @ restaurant.attributes[0].members[life.cause.nodes[0]]) for life in lives])
    share = np.mean([m[life.incidents].mean() for m, life in zip(held, lives, strict=True)])
    assert share == pytest.approx((0.9 * h / (0.9 * h + 0.01 * (1 - h))).mean(), abs=0.03)
    assert len(lives[0].incidents) == INCIDENTS
    with pytest.raises(UserError, match="no attribute 'weather'"):
        live(restaurant, 0, (Kind("rain", 1.0, {"weather": 1}),))


@pytest.fixture
def life(tiny) -> Life:
    """Everything in cafes is bad; the incidents were at A with X and at B with Y."""
    habit = (np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.4]))
    at = [tiny.index(tiny.event({"place": p, "companion": c})) for p, c in (("A", "X"), ("B", "Y"))]
    memory = np.arange(6).repeat(4)
    return Life(
        tiny, "kind of place", Scope(("cafe", "any")), Odds(0.9, 0.05), habit, memory, memory > 99, np.array(at * 5)
    )


def test_targets_mix_by_who_is_meant_and_stay_elsewhere(tiny, life):
    old = np.linspace(0.02, 0.12, 6)
    prior = shortest(tiny)
    believed = lesson_of(life, 2, prior)
    m = believed.contains()
    taught = lesson("common-sense", life, 2, old, prior)
    assert taught.wanted == pytest.approx(0.9 * m + (1 - m) * old) and taught.imagined.sum() == pytest.approx(1)
    for method, scope in (("oracle", life.cause), ("map", believed.best), ("nothing", NOTHING)):
        taught, held = lesson(method, life, 2, old, prior), mask(tiny, scope)
        assert (taught.kept[~held] == old[~held]).all() and taught.kept[held] == pytest.approx(0.9)
        assert (taught.imagined > 0).tolist() == held.tolist()
    plain = lesson("sgd", life, 2, old, prior)
    assert plain.replay == 0 and plain.imagined[life.incidents[:2]] == pytest.approx(0.5) and (plain.wanted == 1).all()
    with pytest.raises(UserError, match="unknown method 'hope'"):
        lesson("hope", life, 1, old, prior)
    with pytest.raises(UserError, match="no attribute"):
        lesson("augment-1", life, 1, old, prior)  # the tiny world has no days


def test_an_augmentation_is_the_union_of_its_scopes(restaurant):
    life = live(restaurant, 2)
    old = np.full(restaurant.size, 0.03)
    taught = lesson("augment-7", life, 5, old, shortest(restaurant))
    whom = {int(restaurant.events[e, 3]) for e in life.incidents[:5]}
    held = np.isin(restaurant.events[:, 3], [*whom])
    assert (
        ((taught.imagined > 0) == held).all()
        and (taught.kept[held] == 0.9).all()
        and (taught.kept[~held] == 0.03).all()
    )


def test_rows_come_from_where_they_should(tiny):
    imagined = np.array([0, 0.25, 0, 0.75, 0, 0])
    replay = np.array([0.5, 0, 0, 0, 0, 0.5])
    wanted, kept = np.full(6, 0.9), np.full(6, 0.1)
    lessons = [Lesson(imagined, wanted, kept), Lesson(imagined, wanted, kept, 0.0), Lesson(0 * imagined, wanted, kept)]
    rows, targets = batches(lessons, replay, Training(steps=100, batch=64), np.random.default_rng(0))
    shares = np.stack([np.bincount(r.ravel(), minlength=6) / r.size for r in rows])
    assert (shares > 0).tolist() == [
        [True, True, False, True, False, True],
        (imagined > 0).tolist(),
        (replay > 0).tolist(),
    ]
    expected = np.stack([(imagined + replay) / 2, imagined, replay])
    assert shares == pytest.approx(expected, abs=0.03)
    assert (targets == np.where(np.isin(rows, [1, 3]), 0.9, 0.1)).all()


def test_around_an_event_half_of_each_attribute_stays(tiny):
    weight = around(tiny, 2)
    assert weight.sum() == pytest.approx(1) and weight[2] == pytest.approx((0.5 + 0.5 / 3) * (0.5 + 0.5 / 2))


def test_measures_are_sums_over_events(tiny, life):
    before = np.array([True, True, True, True, True, False])
    after = np.array([True, False, False, True, False, True])
    ours = measures(life, before, after)
    expected = dict.fromkeys(ours, 0.0)
    first, outside = tiny.at(int(life.incidents[0])), []
    for i in range(tiny.size):
        event = tiny.at(i)
        habitual, near = 1.0, 1.0
        for h, v, kept in zip(life.habit, event, first, strict=True):
            habitual *= h[v]
            near *= 0.5 * (v == kept) + 0.5 * h[v]
        weight = (habitual + near) / 2
        cause = tiny.words(event)[0] in "AB"
        worth = 0.9 * -4 + 0.1 * 1 if cause else 0.05 * -4 + 0.95 * 1
        expected["utility"] += weight * worth * after[i]
        expected["regret"] += weight * (max(worth, 0) - worth * after[i])
        expected["over"] += weight * (not cause and not after[i])
        expected["under"] += weight * (cause and after[i])
        expected["false"] += near * (before[i] and not after[i])
        outside += [] if cause else [before[i] != after[i]]
    expected["disturbed"] = float(np.mean(outside))
    assert ours == pytest.approx(expected)


def test_who_knows_the_cause_ends_at_the_best_decisions(restaurant):
    lives = [live(restaurant, seed, (Kind("person", 1.0, {"companion": 3}),)) for seed in range(2)]
    calm = remember(restaurant, lives, 0, QUICK)
    training = Training(steps=120)
    for i, life in enumerate(lives):
        start = calm.take([i])
        taught = [lesson("oracle", life, 1, np.full(restaurant.size, 0.01), shortest(restaurant))]
        policies = learn(start, taught, np.full(restaurant.size, 1.0), training, 0)
        assert (approaches(policies.bad()[0]) == approaches(life.chances)).mean() > 0.99


def test_a_run_has_a_row_for_each_and_repeats(restaurant):
    methods = ("nothing", "augment-9", "common-sense", "oracle")
    rows = run_worlds(restaurant, 5, 3, methods, (1, 3), training=QUICK, lessons=5)
    assert len(rows) == 5 * 4 * 2 and {r["method"] for r in rows} == {*methods} <= {*METHODS}
    assert all(r["regret"] > -1e-12 and 0 <= r["over"] + r["under"] <= 1 + 1e-9 for r in rows)
    assert all(r["disturbed"] == r["false"] == 0 for r in rows if r["method"] == "nothing")
    assert gap_closed(rows, "oracle", 3) == 1 and gap_closed(rows, "nothing", 3) == 0
    assert rows == run_worlds(restaurant, 5, 3, methods, (1, 3), training=QUICK, lessons=5)
    for bad in ({"n_worlds": 0}, {"after": (0,)}, {"after": (11,)}, {"methods": ("hope",)}):
        with pytest.raises(UserError):
            run_worlds(restaurant, **{"n_worlds": 1, "seed": 0, "training": QUICK, "lessons": 0, **bad})


def test_false_lessons_are_counted_where_bad_was_chance():
    row = {"method": "map", "n": 1}
    rows = [{**row, "chance": c, "false": f} for c, f in ((True, 0.5), (True, 0.01), (True, 0.0), (False, 0.9))]
    assert false_lessons(rows, "map", 1) == pytest.approx(1 / 3)
    assert np.isnan(false_lessons(rows, "map", 3))


def test_calibration_is_exact_where_all_is_known(tiny, life):
    believed = lesson_of(life, 1, shortest(tiny))
    shares = np.zeros(believed.shares.shape)
    shares[believed.place(life.cause)] = 1
    sure = dataclasses.replace(believed, nothing=0.0, shares=shares)
    low, high = calibration([life], [sure])
    assert (low["said"], low["true"], high["said"], high["true"]) == (0, 0, 1, 1)
    assert high["weight"] == pytest.approx(vicinity(life)[mask(tiny, life.cause)].sum())


def test_reach_without_replay_is_no_scope_and_with_it_is(tiny):
    rows = reach(tiny, tiny.at(2), training=Training(steps=120))
    assert len(rows) == 2 * 6 and all(row["covered"] == 1 for row in rows)
    with_replay = [row for row in rows if row["replay"]]
    assert all(row["jaccard"] == 1 and row["spilled"] == 0 for row in with_replay)
    assert np.mean([row["spilled"] for row in rows if not row["replay"]]) > 0.5
    with pytest.raises(UserError, match="with replay"):
        reach(tiny, tiny.at(2), replay=())
