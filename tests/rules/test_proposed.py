"""Rules that are proposed here: that they do what they say. What they are good for is measured elsewhere."""

import math

import pytest
import torch
from problem import Problem, same_however_stopped
from torch import nn

from crevasse.errors import UserError
from crevasse.rules import RULES, Layout, Oracle, Part, Step, Weights
from crevasse.rules.base import copied, inner
from crevasse.rules.scopes import gathered, scattered


def folds(p, k):
    return p.ask(lambda oracle: oracle.microbatch_gradients(k))[1]


def twins(p, k):
    """Rows of which all k folds are the same."""
    return p.rows[: len(p.rows) // k].repeat(k)


def rows_of(part):
    """Where in the vector each row of a part is."""
    size = part.size // part.rows
    return [slice(part.start + r * size, part.start + (r + 1) * size) for r in range(part.rows)]


# -- scopes


def test_sums_over_scopes_and_back_are_those_of_rows_or_of_whole_parts():
    p = Problem()
    g = torch.Generator().manual_seed(0)
    vector = torch.randn(2, len(p.weights.flat), generator=g)
    expected = []
    for part in p.layout.parts:
        places = rows_of(part) if part.kind == "head" else [slice(part.start, part.start + part.size)]
        expected += [(s, vector[:, s].sum(1)) for s in places]
    sums = gathered(p.layout, vector, lambda part: part.kind == "head")
    torch.testing.assert_close(sums, torch.stack([v for _, v in expected], 1))
    back = scattered(p.layout, sums, lambda part: part.kind == "head")
    for (where, _), value in zip(expected, sums.T, strict=True):
        assert (back[:, where] == value[:, None]).all()


# -- crossfit


@pytest.mark.parametrize("by", ["row", "part", "whole"])
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("base", ["sgd:lr=0.3", "adamw:lr=0.01", "momentum:lr=0.1"])
def test_the_gate_is_its_formula(by, k, base):
    """Row by row in loops, at a state of the base that has seen some steps."""
    p, plain = Problem(), RULES.parse(base)
    memory = p.train(plain, 5)
    text, _, options = base.partition(":")
    rule = RULES.parse(f"crossfit:k={k},by={by},base={text},base.{options}")
    weights, gradients = p.weights.flat.clone(), folds(p, k)
    steps = []
    for i in range(k):
        others = torch.stack([gradients[j] for j in range(k) if j != i]).mean(0)
        steps.append((plain.apply(others, weights, copied(memory), p.now())[0] - weights, others))
    target = plain.apply(gradients.mean(0), weights, copied(memory), p.now())[0]
    groups = {
        "row": [[r] for part in p.layout.parts for r in rows_of(part)],
        "part": [rows_of(part) for part in p.layout.parts],
        "whole": [[slice(0, len(weights))]],
    }[by]
    expected, gates = weights.clone(), torch.zeros_like(weights)
    for group in groups:
        own = -sum(float((o[r] * d[r]).sum()) for d, o in steps for r in group)
        held = -sum(float((g[r] * d[r]).sum()) for g, (d, _) in zip(gradients, steps, strict=True) for r in group)
        ratio = min(1.0, max(0.0, held / own)) if own > 0 else 0.0
        for r in group:
            expected[r] += ratio * (target[r] - weights[r])
            gates[r] = ratio
    update = p.update(rule, {f"base.{k}": v for k, v in copied(memory).items()})
    torch.testing.assert_close(update.weights, expected, rtol=1e-4, atol=1e-5)
    assert update.agreed == pytest.approx(float(gates.mean()), abs=1e-3)
    assert 0 <= update.agreed <= 1


@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_folds_that_are_the_same_leave_the_base_as_it_is(base, k):
    gated, plain = Problem(), Problem()
    rule, reference = RULES.parse(f"crossfit:k={k},base={base}"), RULES.parse(base)
    update = gated.update(rule, gated.start(rule), rows=twins(gated, k))
    other = plain.update(reference, plain.start(reference), rows=twins(plain, k))
    torch.testing.assert_close(update.weights, other.weights)
    assert update.agreed == pytest.approx(1)


@pytest.mark.parametrize("base", ["sgd", "adamw", "momentum"])
def test_a_row_whose_folds_contradict_each_other_is_frozen(base):
    rule, p = RULES.parse(f"crossfit:base={base}"), Problem()
    g = torch.Generator().manual_seed(0)
    one = torch.randn(len(p.weights.flat), generator=g)
    head = next(part for part in p.layout.parts if part.kind == "head")
    frozen = rows_of(head)[1]
    two = one.clone()
    two[frozen] *= -1
    gate = rule.gate(torch.stack([one, two]), p.weights.flat, rule.base.init(p.weights.flat, p.layout), p.now())
    assert (gate[frozen] == 0).all()
    open_ = torch.ones_like(gate, dtype=torch.bool)
    open_[frozen] = False
    torch.testing.assert_close(gate[open_], torch.ones(int(open_.sum())))


def test_the_gate_of_gradient_descent_does_not_depend_on_its_rate_nor_on_the_order_of_folds():
    p = Problem()
    gradients = folds(p, 3)
    gates = [
        RULES.parse(f"crossfit:k=3,base=sgd,base.lr={lr}").gate(order, p.weights.flat, {}, p.now())
        for lr, order in ((0.1, gradients), (1.0, gradients), (0.1, gradients.flip(0)))
    ]
    torch.testing.assert_close(gates[0], gates[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(gates[0], gates[2], rtol=1e-3, atol=1e-4)


def test_the_base_of_a_gate_remembers_the_mean_gradient_and_nothing_of_the_proposals():
    p, rule, plain = Problem(), RULES.parse("crossfit:k=3"), RULES.parse("adamw")
    update = p.update(rule, p.start(rule))
    memory = plain.apply(folds(p, 3).mean(0), p.weights.flat, plain.init(p.weights.flat, p.layout), p.now())[1]
    for name, value in inner(update.state).items():
        torch.testing.assert_close(value, memory[name])


def test_strength_opens_the_gate_in_a_straight_line():
    p = Problem()
    gradients = folds(p, 2)
    none, half, full = (
        RULES.parse(f"crossfit:strength={s},base=sgd").gate(gradients, p.weights.flat, {}, p.now()) for s in (0, 0.5, 1)
    )
    assert (none == 1).all()
    torch.testing.assert_close(half, (1 + full) / 2)
    assert 0 <= float(full.min()) < float(full.max()) <= 1


# -- scope


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.inside, self.out = nn.Embedding(5, 3), nn.Linear(3, 4), nn.Linear(4, 2)


def words():
    """A layout with an embedding and a head, its scopes as places in the vector."""
    layout = Weights(Words()).layout
    scopes = []
    for part in layout.parts:
        apart = part.name in ("words.weight", "out.weight")
        scopes += rows_of(part) if apart else [slice(part.start, part.start + part.size)]
    return layout, scopes


@pytest.mark.parametrize("k", [2, 4])
def test_the_scope_step_is_its_formula(k):
    layout, scopes = words()
    assert len(scopes) == 5 + 2 + 2 + 1
    gradients = torch.randn(k, layout.size, generator=torch.Generator().manual_seed(0))
    gradients = gradients + gradients[0]  # or hardly any would agree
    expected, shares = torch.zeros(layout.size), []
    for i in range(k):
        others = torch.stack([gradients[j] for j in range(k) if j != i]).mean(0)
        for s in scopes:
            mine = gradients[i, s]
            share = min(1.0, max(0.0, float(mine @ others[s] / (mine @ mine))))
            expected[s] += share * mine / k
            shares.append(share)
    found, agreed = RULES.parse(f"scope:k={k}").combine(gradients, Step(layout))
    torch.testing.assert_close(found, expected)
    assert agreed == pytest.approx(sum(shares) / len(shares))


@pytest.mark.parametrize("k", [2, 3])
def test_folds_that_are_the_same_teach_each_other_everything(k):
    layout, _ = words()
    gradient = torch.randn(layout.size, generator=torch.Generator().manual_seed(0))
    found, agreed = RULES.parse(f"scope:k={k}").combine(gradient.repeat(k, 1), Step(layout))
    torch.testing.assert_close(found, gradient)
    assert agreed == pytest.approx(1)


def test_where_a_fold_stands_alone_nothing_is_learnt():
    """A token that only one fold has, and a head row in which the folds are orthogonal."""
    layout, scopes = words()
    gradients = torch.randn(layout.size, generator=torch.Generator().manual_seed(0)).repeat(2, 1)
    token, answer = scopes[1], scopes[-2]
    assert (token.stop - token.start, answer.stop - answer.start) == (3, 4)
    gradients[1, token] = 0
    gradients[:, answer] = torch.tensor([[1.0, 2, 0, 0], [0, 0, -1, 3]])
    found, agreed = RULES.parse("scope").combine(gradients, Step(layout))
    assert (found[token] == 0).all()
    assert (found[answer] == 0).all()
    rest = torch.ones(layout.size, dtype=torch.bool)
    rest[token] = rest[answer] = False
    torch.testing.assert_close(found[rest], gradients[0, rest])
    assert agreed == pytest.approx(1 - 3 / (2 * len(scopes) - 1))


def test_the_order_of_folds_makes_no_difference_to_scopes_and_gradients_are_left_alone():
    layout, _ = words()
    gradients = torch.randn(3, layout.size, generator=torch.Generator().manual_seed(0))
    before, rule = gradients.clone(), RULES.parse("scope:k=3")
    torch.testing.assert_close(
        rule.combine(gradients, Step(layout))[0], rule.combine(gradients.flip(0), Step(layout))[0]
    )
    assert torch.equal(gradients, before)


def test_folds_that_contradict_each_other_everywhere_make_no_step():
    layout, _ = words()
    gradient = torch.randn(layout.size, generator=torch.Generator().manual_seed(0))
    found, agreed = RULES.parse("scope").combine(torch.stack([gradient, -gradient]), Step(layout))
    assert agreed == 0.0
    assert (found == 0).all()


# -- jump

MATRIX = Part("m", 0, (12, 10), "matrix")
LAYOUT = Layout((MATRIX, Part("v", 120, (7,), "vector")))


def numbers():
    return torch.randn(127, generator=torch.Generator().manual_seed(0))


def code(values, precision=1e-3):
    """The plain code, number by number."""
    return sum(1 + math.log2(1 + abs(v) / precision) for v in values.flatten().tolist())


def test_rounded_is_the_nearest_place_of_a_grid_and_costs_its_index():
    weights = numbers()
    simple, bits = RULES.parse("jump:bits=3").simplified(weights, LAYOUT, "rounded")
    grid = float(MATRIX.of(weights).abs().max()) / 3
    nearest = [min(range(-3, 4), key=lambda i: abs(v - i * grid)) for v in MATRIX.of(weights).flatten().tolist()]
    torch.testing.assert_close(MATRIX.of(simple).flatten(), grid * torch.tensor(nearest))
    expected = sum(1 + math.log2(1 + abs(i)) for i in nearest) + code(torch.tensor(grid)) + code(weights[120:])
    assert bits == pytest.approx(expected, rel=1e-5)


def test_pruned_has_its_smallest_entries_at_zero_for_a_bit_each():
    weights = numbers()
    simple, bits = RULES.parse("jump:share=0.25").simplified(weights, LAYOUT, "pruned")
    limit = sorted(MATRIX.of(weights).flatten().abs().tolist())[30]
    expected = [v if abs(v) >= limit else 0.0 for v in weights[:120].tolist()]
    assert simple[:120].tolist() == expected
    assert bits == pytest.approx(30 + code(torch.tensor([v for v in expected if v])) + code(weights[120:]), rel=1e-5)


def test_shared_has_few_different_entries_each_near_what_it_was_and_costs_an_index():
    weights = numbers()
    simple, bits = RULES.parse("jump:bits=2").simplified(weights, LAYOUT, "shared")
    ordered = sorted(weights[:120].tolist())
    book = [ordered[i] for i in (15, 45, 75, 105)]
    assert simple[:120].tolist() == [min(book, key=lambda b: abs(b - v)) for v in weights[:120].tolist()]
    assert bits == pytest.approx(code(torch.tensor(book)) + 2 * 120 + code(weights[120:]), rel=1e-5)


def test_lowrank_is_the_best_approximation_of_its_rank_and_costs_its_factors():
    weights = numbers()
    simple, bits = RULES.parse("jump:rank=0.3").simplified(weights, LAYOUT, "lowrank")
    before, after = MATRIX.of(weights), MATRIX.of(simple)
    assert int(torch.linalg.matrix_rank(after, rtol=1e-4)) == 3
    singular = torch.linalg.svdvals(before)
    assert float((before - after).square().sum()) == pytest.approx(float(singular[3:].square().sum()), rel=1e-4)
    assert code(weights[120:]) + 3 * 22 < bits < code(weights[120:]) + 3 * 22 * 14
    assert bits < code(simple)


@pytest.mark.parametrize("kind", ["rounded", "pruned", "shared", "lowrank"])
def test_a_change_made_twice_is_made_once_and_leaves_vectors_alone(kind):
    rule, weights = RULES.parse("jump"), numbers()
    once, bits = rule.simplified(weights, LAYOUT, kind)
    assert torch.equal(once[120:], weights[120:])
    assert bits < code(weights)
    if kind != "shared":  # quantiles of quantiles are others
        torch.testing.assert_close(rule.simplified(once, LAYOUT, kind)[0], once, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["rounded", "pruned", "shared", "lowrank"])
def test_weights_that_are_all_zero_stay_so(kind):
    simple, bits = RULES.parse("jump").simplified(torch.zeros(127), LAYOUT, kind)
    assert (simple == 0).all()
    assert math.isfinite(bits)


TAKEN_BACK = "jump:start=60,every=6,repair=3,bits=2,share=0.9,rank=0.01,examples=1000000000,base.lr=0.02"


@pytest.mark.parametrize("kind", ["rounded", "pruned", "shared", "lowrank"])
def test_a_jump_that_is_taken_back_leaves_training_as_it_was_before_it(kind):
    """A trained net loses by it, and with so many examples no bits make up for that. What follows is as without it."""
    jumping, plain, base = Problem(), Problem(), RULES.parse("adamw:lr=0.02")
    rule = RULES.parse(f"{TAKEN_BACK},kind={kind}")
    state = jumping.train(rule, 66)
    other = plain.train(base, 66)
    assert torch.equal(jumping.weights.flat, plain.weights.flat)
    for _ in range(3):
        state = jumping.step(rule, state).state
        assert float(state["pending"]) == 1
        assert torch.equal(state["kept"], plain.weights.flat)
        assert torch.equal(rule.judged(jumping.weights.flat, state), plain.weights.flat)
    assert not torch.allclose(jumping.weights.flat, plain.weights.flat, atol=1e-2)
    state = jumping.step(rule, state).state
    plain.train(base, 1, other)
    assert torch.equal(jumping.weights.flat, plain.weights.flat)
    assert torch.equal(inner(state)["mean"], other["mean"])
    assert [float(state[k]) for k in ("pending", "proposed", "accepted")] == [0, 1, 0]


def test_a_jump_that_shortens_the_description_is_kept_and_its_weights_are_simple():
    p, rule = Problem(), RULES.parse("jump:every=6,repair=3,kind=pruned,share=0.5,examples=1")
    state = p.train(rule, 9)
    repaired, memory = p.weights.flat.clone(), copied(inner(state))
    update = p.step(rule, state)
    assert [float(update.state[k]) for k in ("pending", "proposed", "accepted")] == [0, 1, 1]
    simple = rule.simplified(repaired, p.layout, "pruned")[0]
    assert int((simple == 0).sum()) == 22  # half of 30 and of 15 entries, each rounded down
    q = Problem()
    q.weights.flat.copy_(simple)
    expected = rule.base.apply(q.ask(Oracle.gradient)[1], simple, memory, q.now())[0]
    torch.testing.assert_close(p.weights.flat, expected)


@pytest.mark.parametrize("examples", [1, 24, 100, 1000, 100_000])
def test_a_jump_is_kept_exactly_where_loss_and_weights_together_take_fewer_bits(examples):
    p, rule = Problem(), RULES.parse(f"jump:every=6,repair=3,kind=rounded,bits=3,examples={examples}")
    state = p.train(rule, 9)
    kept = state["kept"].clone()
    simple, bits = rule.simplified(p.weights.flat, p.layout, "rounded")
    with p.weights.at(simple):
        after = float(p.loss(p.rows).detach()) * examples / math.log(2) + bits
    with p.weights.at(kept):
        before = float(p.loss(p.rows).detach()) * examples / math.log(2) + code(kept)
    assert bool(p.step(rule, state).state["accepted"]) == (after < before)


def test_jumps_come_every_so_often_from_their_start_and_one_kind_after_another():
    p, rule = Problem(), RULES.parse("jump:every=5,start=3,repair=2,examples=1")
    state, seen = p.start(rule), []
    for number in range(30):
        before = float(state["proposed"])
        state = p.step(rule, state).state
        if float(state["proposed"]) > before:
            seen.append(number)
    assert seen == [8, 13, 18, 23, 28]


@pytest.mark.parametrize(
    ("text", "accepted"), [("jump:start=60,every=6,repair=3,kind=pruned,examples=1", True), (TAKEN_BACK, False)]
)
def test_a_judgement_costs_a_forward_pass_and_taking_back_a_whole_one(text, accepted):
    p = Problem()
    state = p.train(RULES.parse(text), 70)
    assert bool(state["accepted"]) == accepted
    forward, backward = (1, 0) if accepted else (2, 1)
    assert (p.cost.forward_rows, p.cost.backward_rows) == (24 * (70 + forward), 24 * (70 + backward))


def test_what_diverges_on_trial_is_taken_back():
    p, rule = Problem(), RULES.parse("jump:every=4,repair=2,examples=1,base=sgd")
    state = p.train(rule, 5)
    p.weights.flat.fill_(math.nan)
    state = p.train(rule, 2, state)
    assert p.weights.flat.isfinite().all()
    assert float(state["accepted"]) == 0


@pytest.mark.parametrize("examples", [1, 10**9])
@pytest.mark.parametrize("base", ["adamw", "momentum"])
def test_stopped_around_a_jump_a_training_is_the_same(base, examples):
    rule = RULES.parse(f"jump:every=4,repair=2,bits=2,examples={examples},base={base}")
    state = same_however_stopped(rule, 20)
    assert float(state["proposed"]) == 4


def test_at_rate_zero_there_are_no_jumps():
    p, rule = Problem(), RULES.parse("jump:every=3,repair=1")
    before, state = p.weights.flat.clone(), p.start(rule)
    for _ in range(8):
        state = p.step(rule, state, 0.0).state
    assert torch.equal(p.weights.flat, before)


@pytest.mark.parametrize("name", ["crossfit", "scope", "jump"])
def test_what_is_proposed_here_says_so(name):
    assert "roposed here, to be refuted" in " ".join(RULES.cls(name).__doc__.split())


@pytest.mark.parametrize(
    "text",
    ["crossfit:k=1", "crossfit:by=entry", "crossfit:strength=2", "scope:k=1", "scope:strength=-1", "jump:every=-1",
     "jump:every=5,repair=5", "jump:repair=0", "jump:start=-1", "jump:bits=1", "jump:share=0", "jump:rank=2",
     "jump:precision=0", "jump:examples=0", "jump:kind=short", "jump:base=jump"],
)  # fmt: skip
def test_impossible_settings_are_refused_in_one_line(text):
    with pytest.raises(UserError) as error:
        RULES.parse(text)
    assert "\n" not in str(error.value)
