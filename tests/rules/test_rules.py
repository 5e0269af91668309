"""Rules by the mathematical properties that they claim, against torch and against formulas written out here."""

import pytest
import torch
from problem import Problem
from torch import nn

from crevasse.errors import UserError
from crevasse.rules import RULES, Cost, Oracle
from crevasse.rules.gaf import agreeing


@pytest.mark.parametrize(
    ("text", "optimizer"),
    [
        ("sgd:lr=0.1,momentum=0", lambda p: torch.optim.SGD(p, 0.1)),
        ("sgd:lr=0.1,momentum=0.9", lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        ("sgd:lr=0.1,momentum=0.5,decay=0.3", lambda p: torch.optim.SGD(p, 0.1, momentum=0.5, weight_decay=0.3)),
        ("momentum:lr=0.1", lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        ("nesterov:lr=0.1,momentum=0.7,decay=0.1",
         lambda p: torch.optim.SGD(p, 0.1, momentum=0.7, weight_decay=0.1, nesterov=True)),
        ("adamw", lambda p: torch.optim.AdamW(p, 3e-3, betas=(0.9, 0.98), weight_decay=0.01)),
        ("adamw:lr=0.1,decay=0.5,beta1=0,beta2=0.999",
         lambda p: torch.optim.AdamW(p, 0.1, betas=(0.0, 0.999), weight_decay=0.5)),
    ],
)  # fmt: skip
def test_base_rules_are_torchs_own_optimizers(text, optimizer):
    ours, theirs = Problem(), Problem()
    rule, reference = RULES.parse(text), optimizer(theirs.module.parameters())
    state = ours.start(rule)
    for _ in range(30):
        ours.step(rule, state)
        reference.zero_grad()
        theirs.loss(theirs.rows).backward()
        reference.step()
        torch.testing.assert_close(ours.weights.flat, nn.utils.parameters_to_vector(theirs.module.parameters()))


@pytest.mark.parametrize("name", ["gaf", "gaf-sign"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_order_of_the_microbatches_makes_no_difference(name, k):
    rows = torch.arange(24)
    orders = [rows, torch.cat(list(rows.view(k, -1).flip(0)))]
    results = []
    for order in orders:
        p, rule = Problem(), RULES.parse(f"{name}:k={k},threshold=1.2" if name == "gaf" else f"{name}:k={k}")
        results.append(p.step(rule, p.start(rule), rows=order))
    torch.testing.assert_close(results[0].weights, results[1].weights)
    assert results[0].agreed == pytest.approx(results[1].agreed)


@pytest.mark.parametrize("k", [2, 4])
def test_a_filter_that_lets_everything_through_is_its_base(k):
    for base in ("sgd", "adamw"):
        filtered, plain = Problem(), Problem()
        rule, reference = RULES.parse(f"gaf:k={k},threshold=2,base={base}"), RULES.parse(base)
        state, other = filtered.start(rule), plain.start(reference)
        for _ in range(10):
            assert filtered.step(rule, state).agreed == 1.0
            plain.step(reference, other)
        torch.testing.assert_close(filtered.weights.flat, plain.weights.flat, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.3, 0.7, 0.97, 1.0, 1.3])
def test_two_microbatches_agree_exactly_where_their_cosine_distance_is_at_most_the_threshold(threshold):
    g = torch.Generator().manual_seed(0)
    for _ in range(50):
        pair = torch.randn(2, 3, generator=g)
        distance = 1 - torch.cosine_similarity(pair[0], pair[1], dim=0)
        assert agreeing(pair, threshold).tolist() == [bool(distance <= threshold)] * 2


def test_one_who_disagrees_is_left_out_and_the_rest_is_a_true_mean():
    together = torch.tensor([[1.0, 0.1, 0.0], [1.0, -0.1, 0.0], [1.0, 0.0, 0.1]])
    gradients = torch.cat([together, torch.tensor([[-1.0, 0.0, 0.0]])])
    agree = agreeing(gradients, 0.5)
    assert agree.tolist() == [True, True, True, False]
    torch.testing.assert_close(gradients[agree].mean(0), together.mean(0))


def test_no_agreement_no_step_and_no_trace_in_the_state():
    p, rule = Problem(), RULES.parse("gaf:threshold=0")
    state = p.start(rule)
    before, weights = {k: v.clone() for k, v in state.items()}, p.weights.flat.clone()
    update = p.step(rule, state)
    assert update.agreed == 0.0
    assert torch.equal(p.weights.flat, weights)
    assert all(torch.equal(update.state[k], before[k]) for k in before)


@pytest.mark.parametrize("epsilon", [None, 0.05])
def test_the_sign_filter_keeps_an_entry_where_both_halves_agree(epsilon):
    p = Problem()
    option = "" if epsilon is None else f",epsilon={epsilon}"
    rule = RULES.parse(f"gaf-sign:base=sgd,base.lr=1.0,base.momentum=0{option}")
    halves = p.ask(lambda oracle: oracle.microbatch_gradients(2))[1]
    expected = p.weights.flat.clone()
    for i, (a, b) in enumerate(zip(*[h.tolist() for h in halves], strict=True)):
        if a * b > 0 and (epsilon is None or abs(a - b) < epsilon):
            expected[i] -= (a + b) / 2
    before = p.weights.flat.clone()
    update = p.step(rule, p.start(rule))
    torch.testing.assert_close(p.weights.flat, expected)
    assert update.agreed == pytest.approx(float((expected != before).float().mean()))
    assert 0 < update.agreed < 1


def test_weights_and_module_are_one_memory():
    p = Problem()
    p.weights.flat.zero_()
    assert all((v == 0).all() for v in p.module.parameters())
    assert len(p.weights.flat) == sum(v.numel() for v in p.module.parameters())


def test_a_batch_that_cannot_be_split_is_refused_before_it_costs_anything():
    p = Problem()
    with pytest.raises(ValueError, match="cannot be split"):
        p.ask(lambda oracle: oracle.microbatch_gradients(4), torch.arange(3))
    assert p.cost == Cost()


@pytest.mark.parametrize(
    "text", ["sgd:lr=-1", "sgd:momentum=1", "sgd:lr=nan", "adamw:beta2=1", "adamw:epsilon=0", "adamw:lr=fast",
             "gaf:k=1", "gaf:threshold=3", "gaf:base=gaf", "gaf-sign:epsilon=0", "adam", "gaf:base.speed=1"],
)  # fmt: skip
def test_impossible_rules_are_refused_in_one_line(text):
    with pytest.raises(UserError) as error:
        RULES.parse(text)
    assert "\n" not in str(error.value)


def test_the_rolling_median_is_that_of_the_last_three_gradients():
    p, rule = Problem(), RULES.parse("rm3:base=sgd,base.lr=1")
    state, seen = p.start(rule), []
    for number in range(7):
        rows = torch.randperm(24, generator=torch.Generator().manual_seed(number))[:12]
        before = p.weights.flat.clone()
        seen.append(p.ask(Oracle.gradient, rows)[1])
        state = p.step(rule, state, rows=rows).state
        expected = torch.stack(seen[-3:]).sort(0).values[1] if number >= 2 else seen[-1]
        torch.testing.assert_close(before - p.weights.flat, expected)
