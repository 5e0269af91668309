"""Capacity withheld, and given back."""

import pytest
import torch
from problem import Problem, same_however_stopped

from crevasse.errors import UserError
from crevasse.rules import RULES
from crevasse.rules.starve import WITHHELD, dropped, narrowed

NEVER = ",until=1"  # the steer loss does not fall to zero


def steer_loss(p):
    return float(p.loss(p.steered).detach())


@pytest.mark.parametrize("by", WITHHELD)
def test_it_goes_on_wherever_it_was_stopped(by):
    same_however_stopped(RULES.parse(f"starve:by={by},strength=0.4,until=0.05,feed=4,check=2"), 12)


def test_units_that_are_withheld_are_zero_and_come_back():
    p, rule = Problem(), RULES.parse("starve:by=width,strength=0.6,until=0.05,feed=10,check=1,base.lr=0.03")
    kept = p.layout.window((("hidden", 2),))
    outside = torch.ones(p.layout.size, dtype=torch.bool)
    outside[kept] = False
    start, state = p.weights.flat[outside].clone(), p.start(rule)
    state = p.step(rule, state).state
    assert (p.weights.flat[outside] == 0).all() and outside.any()
    # A base that decays weights does so with those withheld too; otherwise nothing moves them.
    torch.testing.assert_close(state["whole"][outside], start, rtol=1e-2, atol=1e-6)
    state = p.train(rule, 60, state)
    assert int(state["fed"]) > 10
    assert torch.equal(p.weights.flat, state["whole"]) and (p.weights.flat[outside] != 0).all()


def test_the_rank_is_what_was_left():
    p, rule = Problem(), RULES.parse("starve:by=rank,strength=0.6" + NEVER)
    p.train(rule, 5)
    ranks = [torch.linalg.matrix_rank(part.of(p.weights.flat)) for part in p.layout.parts if part.kind == "matrix"]
    assert ranks == [2]


def test_few_bits_are_few_values():
    p, rule = Problem(), RULES.parse("starve:by=precision,strength=1" + NEVER)
    state = p.train(rule, 5)
    for part in p.layout.parts:
        if part.kind != "vector":
            for row, free in zip(part.matrix(p.weights.flat), part.matrix(state["whole"]), strict=True):
                assert len(row.abs().unique()) <= 2
                assert len(free.abs().unique()) > 2


def test_decay_is_that_of_adamw():
    p, q = Problem(), Problem()
    p.train(RULES.parse("starve:by=decay,strength=0.05,base=sgd,base.lr=0.1" + NEVER), 4)
    for _ in range(4):
        with torch.no_grad():
            before = q.weights.flat.clone()
        loss = q.loss(q.rows)
        g = torch.cat([x.flatten() for x in torch.autograd.grad(loss, list(q.module.parameters()))])
        moved = before - 0.1 * g
        for part in q.layout.parts:
            if part.kind != "vector":
                part.of(moved).mul_(0.95)
        q.weights.flat.copy_(moved)
    torch.testing.assert_close(p.weights.flat, q.weights.flat)


def test_dropout_drops_whole_units_and_others_each_step():
    p = Problem()
    ones, seen = torch.ones(p.layout.size), set()
    for number in range(40):
        p.number = number
        out = dropped(ones, 0.5, p.now())
        first, bias, second = (part.of(out) for part in p.layout.parts[:3])
        alive = bias > 0
        assert torch.equal(first, alive[:, None].float().expand(5, 6))
        assert torch.equal(second, alive.float().expand(3, 5))
        seen.add(tuple(alive.tolist()))
    assert len(seen) > 10
    assert 0.3 < sum(map(sum, seen)) / (5 * len(seen)) < 0.7


def test_it_feeds_when_the_steer_loss_has_fallen_and_looks_no_more():
    p, rule = Problem(), RULES.parse("starve:strength=0.01,until=0.1,feed=5,check=4,base.lr=0.03")
    state, looks, first = p.start(rule), 0, steer_loss(p)
    for number in range(40):
        before = int(state["fed"])
        lost = steer_loss(p)
        p.cost.forward_rows = 0
        state = p.step(rule, state).state
        looked = before < 0 and number % 4 == 0
        looks += looked
        assert p.cost.forward_rows == 24 * (1 + looked)
        if before < 0 and int(state["fed"]) >= 0:
            assert looked and lost <= 0.9 * first
    assert looks > 1 and int(state["fed"]) >= 0
    assert rule.withheld(-1) == 0.01 and rule.withheld(5) == 0 and rule.withheld(2) == pytest.approx(0.006)


def test_a_narrow_model_is_that_of_the_window():
    p = Problem()
    out = narrowed(torch.ones(p.layout.size), 0.6, p.now())
    assert torch.equal(out.nonzero()[:, 0], p.layout.window((("hidden", 2),)))


@pytest.mark.parametrize("text", ["strength=2", "until=-1", "feed=0", "check=0", "by=hunger"])
def test_settings_that_cannot_be_are_refused(text):
    with pytest.raises(UserError, match=text.partition("=")[0]):
        RULES.parse(f"starve:{text}")
