"""What holds for every rule."""

import pytest
import torch
from claims import CLAIMS
from problem import Problem, same_however_stopped

from crevasse.rules import RULES, Oracle
from crevasse.spec import describe

EVERY_RULE = [name for name in RULES if name != "file"]  # which is no rule of its own (test_from_file.py)


def test_every_rule_makes_its_claims():
    assert list(CLAIMS) == EVERY_RULE


@pytest.mark.parametrize("name", EVERY_RULE)
def test_a_rule_leaves_the_weights_that_it_was_given_alone(name):
    p, rule = Problem(), RULES.parse(name)
    state = p.start(rule)
    for _ in range(3):
        before = p.weights.flat.clone()
        update = p.update(rule, state)
        assert torch.equal(p.weights.flat, before)
        assert update.weights.shape == before.shape
        p.weights.flat.copy_(update.weights)
        state, p.number = update.state, p.number + 1


@pytest.mark.parametrize("name", EVERY_RULE)
def test_at_rate_zero_nothing_moves(name):
    p, rule = Problem(), RULES.parse(name)
    before, state = p.weights.flat.clone(), p.start(rule)
    for _ in range(3):
        state = p.step(rule, state, 0.0).state
    assert torch.equal(p.weights.flat, before)


@pytest.mark.parametrize("name", EVERY_RULE)
def test_every_rule_descends_on_a_plain_problem(name):
    p, rule = Problem(), RULES.parse(CLAIMS[name].trains or name)
    first = float(p.ask(Oracle.loss))
    state = p.train(rule, 60)
    p.weights.flat.copy_(rule.judged(p.weights.flat, state))
    assert float(p.ask(Oracle.loss)) < 0.9 * first


@pytest.mark.parametrize("name", EVERY_RULE)
def test_a_step_costs_what_the_rule_claims(name):
    p, rule = Problem(), RULES.parse(name)
    p.step(rule, p.start(rule))
    claim = CLAIMS[name]
    assert (p.cost.forward_rows, p.cost.backward_rows) == pytest.approx((24 * claim.forward, 24 * claim.backward))


@pytest.mark.parametrize("name", EVERY_RULE)
def test_without_its_strength_it_is_its_base(name):
    claim = CLAIMS[name]
    if claim.zero is None:
        pytest.skip("a plain rule, or one without a strength")
    ours, theirs = Problem(), Problem()
    ours.train(RULES.parse(claim.zero), 12)
    theirs.train(RULES.parse(claim.plain), 12)
    torch.testing.assert_close(ours.weights.flat, theirs.weights.flat, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", EVERY_RULE)
def test_stopped_at_any_question_and_made_again_a_step_is_the_same(name):
    same_however_stopped(RULES.parse(name), 5)


@pytest.mark.parametrize("name", EVERY_RULE)
def test_the_names_of_its_state_never_change(name):
    p, rule = Problem(), RULES.parse(name)
    names = list(p.start(rule))
    assert list(p.train(rule, 4)) == names


@pytest.mark.parametrize("name", EVERY_RULE)
def test_its_state_can_be_sized_without_any_memory(name):
    p, rule = Problem(), RULES.parse(name)
    real = p.start(rule)
    sized = rule.init(torch.empty_like(p.weights.flat, device="meta"), p.layout)
    assert {k: v.shape for k, v in sized.items()} == {k: v.shape for k, v in real.items()}


@pytest.mark.parametrize("name", EVERY_RULE)
@pytest.mark.parametrize("base", ["sgd", "momentum:decay=0.1"])
def test_it_stands_before_any_base(name, base):
    rule = RULES.parse(name)
    if not hasattr(rule, "base"):
        pytest.skip("it has no base")
    text, _, options = base.partition(":")
    inner = "".join(f",base.{o}" for o in filter(None, options.split(",")))
    rule = RULES.parse(f"{name}:base={text}{inner}")
    assert RULES.parse(describe(rule)) == rule
    p = Problem()
    p.train(rule, 5)
    assert p.weights.flat.isfinite().all()


@pytest.mark.parametrize("name", EVERY_RULE)
def test_its_docstring_gives_the_cost_and_when_not_to_use_it(name):
    said = " ".join(RULES.cls(name).__doc__.split())
    assert "Cost" in said or "as `" in said
    assert "Not " in said or "not to use it" in said
