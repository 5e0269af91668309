"""Rules by the mathematical properties that they claim, against torch and against formulas written out here."""

import pytest
import torch
from torch import nn

from crevasse.errors import UserError
from crevasse.rules import RULES, Cost, Oracle, Seen, Weights, answered
from crevasse.rules.gaf import agreeing

EVERY_RULE = list(RULES)


class Problem:
    """Linear regression with its oracle."""

    def __init__(self, rows=24, seed=0):
        g = torch.Generator().manual_seed(seed)
        self.x, self.y = torch.randn(rows, 6, generator=g), torch.randn(rows, 2, generator=g)
        torch.manual_seed(seed)
        self.module = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
        self.weights, self.cost = Weights(self.module), Cost()

    def loss(self, rows):
        return (self.module(self.x[rows]) - self.y[rows]).square().mean()

    def answer(self, rows, ask):
        """What the rule asked, computed by torch alone."""
        before = self.weights.flat.clone()
        self.weights.flat.copy_(before if ask.at is None else ask.at)
        size = len(rows) // ask.parts
        losses = [self.loss(part) for part in rows[: size * ask.parts].split(size)]
        slopes = [torch.autograd.grad(loss, list(self.module.parameters())) for loss in losses] if ask.slopes else []
        self.weights.flat.copy_(before)
        gradients = torch.stack([torch.cat([g.flatten() for g in slope]) for slope in slopes]) if slopes else None
        return Seen(torch.stack(losses).detach(), gradients)

    def ask(self, question, rows=None):
        """question: from an oracle to what it yields."""
        rows = torch.arange(len(self.x)) if rows is None else rows
        return answered(question(Oracle(len(rows), self.cost)), lambda ask: self.answer(rows, ask))

    def update(self, rule, state, scale=1.0, rows=None):
        return self.ask(lambda oracle: rule.update(oracle, self.weights.flat, state, scale), rows)

    def step(self, rule, state, scale=1.0, rows=None):
        update = self.update(rule, state, scale, rows)
        self.weights.flat.copy_(update.weights)
        return update


@pytest.mark.parametrize(
    ("text", "optimizer"),
    [
        ("sgd:lr=0.1,momentum=0", lambda p: torch.optim.SGD(p, 0.1)),
        ("sgd:lr=0.1,momentum=0.9", lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
        ("sgd:lr=0.1,momentum=0.5,decay=0.3", lambda p: torch.optim.SGD(p, 0.1, momentum=0.5, weight_decay=0.3)),
        ("adamw", lambda p: torch.optim.AdamW(p, 3e-3, betas=(0.9, 0.98), weight_decay=0.01)),
        ("adamw:lr=0.1,decay=0.5,beta1=0,beta2=0.999",
         lambda p: torch.optim.AdamW(p, 0.1, betas=(0.0, 0.999), weight_decay=0.5)),
    ],
)  # fmt: skip
def test_base_rules_are_torchs_own_optimizers(text, optimizer):
    ours, theirs = Problem(), Problem()
    rule, reference = RULES.parse(text), optimizer(theirs.module.parameters())
    state = rule.init(ours.weights.flat)
    for _ in range(30):
        ours.step(rule, state)
        reference.zero_grad()
        theirs.loss(torch.arange(24)).backward()
        reference.step()
        torch.testing.assert_close(ours.weights.flat, nn.utils.parameters_to_vector(theirs.module.parameters()))


@pytest.mark.parametrize("name", EVERY_RULE)
def test_a_rule_leaves_the_weights_that_it_was_given_alone(name):
    p, rule = Problem(), RULES.parse(name)
    before = p.weights.flat.clone()
    p.update(rule, rule.init(p.weights.flat))
    assert torch.equal(p.weights.flat, before)


@pytest.mark.parametrize("name", EVERY_RULE)
def test_at_rate_zero_nothing_moves(name):
    p, rule = Problem(), RULES.parse(name)
    update = p.update(rule, rule.init(p.weights.flat), 0.0)
    assert torch.equal(update.weights, p.weights.flat)


@pytest.mark.parametrize("name", EVERY_RULE)
def test_every_rule_descends_on_a_plain_problem(name):
    p, rule = Problem(), RULES.parse(name)
    state, first = rule.init(p.weights.flat), float(p.ask(Oracle.loss))
    for _ in range(60):
        state = p.step(rule, state).state
    assert float(p.ask(Oracle.loss)) < 0.9 * first


@pytest.mark.parametrize("name", EVERY_RULE)
def test_a_step_costs_one_forward_and_one_backward_pass_over_the_batch(name):
    p, rule = Problem(), RULES.parse(name)
    p.step(rule, rule.init(p.weights.flat))
    assert (p.cost.forward_rows, p.cost.backward_rows) == (24, 24)
    assert p.cost.passes(24) == 2.0


@pytest.mark.parametrize("name", ["gaf", "gaf-sign"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_the_order_of_the_microbatches_makes_no_difference(name, k):
    rows = torch.arange(24)
    orders = [rows, torch.cat(list(rows.view(k, -1).flip(0)))]
    results = []
    for order in orders:
        p, rule = Problem(), RULES.parse(f"{name}:k={k},threshold=1.2" if name == "gaf" else f"{name}:k={k}")
        results.append(p.step(rule, rule.init(p.weights.flat), rows=order))
    torch.testing.assert_close(results[0].weights, results[1].weights)
    assert results[0].agreed == pytest.approx(results[1].agreed)


@pytest.mark.parametrize("k", [2, 4])
def test_a_filter_that_lets_everything_through_is_its_base(k):
    for base in ("sgd", "adamw"):
        filtered, plain = Problem(), Problem()
        rule, reference = RULES.parse(f"gaf:k={k},threshold=2,base={base}"), RULES.parse(base)
        state, other = rule.init(filtered.weights.flat), reference.init(plain.weights.flat)
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
    state = rule.init(p.weights.flat)
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
    update = p.step(rule, rule.init(p.weights.flat))
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


def test_an_oracle_offers_no_way_to_any_data():
    """A hostile rule that follows every attribute finds the size of the batch and what it has cost, and no more."""
    assert vars(Oracle(24, Cost())) == {"batch": 24, "cost": Cost()}
