"""Rules driven by held-out data, against torch's own second derivatives and formulas written out here."""

import math

import pytest
import torch
from problem import Problem, same_however_stopped
from torch.autograd.functional import hessian
from torch.func import functional_call

from crevasse.errors import UserError
from crevasse.rules import RULES, Ask, Oracle
from crevasse.rules.base import copied, inner


def loss_of(p, rows):
    """The mean loss of some rows as a function of the flat weights, for torch to differentiate as often as it likes."""

    def loss(flat):
        named = {
            name: part.of(flat) for (name, _), part in zip(p.module.named_parameters(), p.layout.parts, strict=True)
        }
        return torch.nn.functional.cross_entropy(functional_call(p.module, named, p.x[rows]), p.y[rows])

    return loss


def slope(p, rows, at=None):
    return torch.func.grad(loss_of(p, rows))(p.weights.flat.clone() if at is None else at)


def went(p, rule, **kwargs):
    """The gradient that the base was given, where it is gradient descent of rate 1."""
    return p.weights.flat - p.update(RULES.parse(f"{rule},base=sgd,base.lr=1"), {}, **kwargs).weights


# -- reweight


@pytest.mark.parametrize("k", [2, 4, 8, 24])
def test_reweighting_is_the_derivative_of_a_virtual_step_by_the_weights_of_its_parts(k):
    """Ren et al. 2018, algorithm 1, differentiated by torch through the virtual step itself."""
    p = Problem()
    flat, training, steering = p.weights.flat.clone(), p.rows.view(k, -1), loss_of(p, p.steered)
    share = torch.zeros(k, requires_grad=True)

    def after(share):
        virtual = torch.stack([s * slope(p, rows) for s, rows in zip(share, training, strict=True)]).sum(0)
        return steering(flat - 0.1 * virtual)

    (meta,) = torch.autograd.grad(after(share), share)
    wanted = (-meta).clamp(min=0)
    wanted = wanted / wanted.sum()
    expected = (wanted[:, None] * torch.stack([slope(p, rows) for rows in training])).sum(0)
    torch.testing.assert_close(went(p, f"reweight:k={k}"), expected, rtol=1e-4, atol=1e-6)
    assert p.update(RULES.parse(f"reweight:k={k},base=sgd"), {}).agreed == pytest.approx(
        float((wanted > 0).float().mean())
    )


def test_weights_of_parts_add_up_to_one_and_are_those_that_help():
    rule, g = RULES.parse("reweight:k=4"), torch.Generator().manual_seed(0)
    for _ in range(50):
        gradients, wanted = torch.randn(4, 5, generator=g), torch.randn(5, generator=g)
        shares = rule.weigh(gradients, wanted)
        helps = gradients @ wanted
        assert ((shares > 0) == (helps > 0)).all()
        if (helps > 0).any():
            assert float(shares.sum()) == pytest.approx(1)


def test_a_part_whose_labels_are_wrong_weighs_less():
    p, rule = Problem(rows=96, steer=96), RULES.parse("reweight:k=8")
    p.y[:12] = (p.y[:12] + 1) % 3
    p.train(RULES.parse("sgd"), 10)
    gradients = p.ask(lambda oracle: oracle.microbatch_gradients(8))[1]
    shares = rule.weigh(gradients, p.ask(lambda oracle: oracle.gradient(steer=True))[1])
    assert float(shares[0]) < float(shares[1:].min())


def test_where_no_part_helps_the_steer_set_no_step_is_made():
    p, rule = Problem(), RULES.parse("reweight:k=2")
    p.x[p.steered], p.y[p.steered] = p.x[p.rows], (p.y[p.rows] + 1) % 3
    gradients = p.ask(lambda oracle: oracle.microbatch_gradients(2))[1]
    assert (gradients @ p.ask(lambda oracle: oracle.gradient(steer=True))[1] < 0).all()
    state = p.start(rule)
    before = copied(state)
    update = p.update(rule, state)
    assert update.agreed == 0.0
    assert torch.equal(update.weights, p.weights.flat)
    assert all(torch.equal(update.state[k], before[k]) for k in before)


def test_strength_goes_in_a_straight_line_from_the_mean_gradient_to_the_weighed_one():
    p = Problem()
    none, half, full = (went(p, f"reweight:strength={s}") for s in (0, 0.5, 1))
    torch.testing.assert_close(none, slope(p, p.rows), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(half, (none + full) / 2, rtol=1e-4, atol=1e-6)


# -- bilevel


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_bilevel_is_its_formula(k, beta):
    p = Problem()
    folds = list(p.rows.view(k, -1))
    flat, slopes = p.weights.flat.clone(), [slope(p, rows) for rows in folds]
    expected = torch.zeros_like(flat)
    for i, rows in enumerate(folds):
        others = torch.stack([s for j, s in enumerate(slopes) if j != i]).mean(0)
        expected += (slopes[i] + beta * slope(p, rows, flat - 0.7 * others)) / (1 + beta) / k
    torch.testing.assert_close(went(p, f"bilevel:k={k},beta={beta},inner=0.7"), expected, rtol=1e-4, atol=1e-6)


def test_bilevel_with_much_beta_is_first_order_maml():
    """Finn et al. 2017: only the gradient after the inner step counts."""
    p = Problem()
    a, b = p.rows.view(2, -1)
    flat = p.weights.flat.clone()
    expected = (slope(p, a, flat - 0.5 * slope(p, b)) + slope(p, b, flat - 0.5 * slope(p, a))) / 2
    torch.testing.assert_close(went(p, "bilevel:inner=0.5,beta=1e5"), expected, rtol=1e-3, atol=1e-5)


def test_a_short_look_ahead_bends_the_gradient_by_the_hessian_of_a_fold_along_the_others():
    p, inner_rate = Problem(), 1e-2
    a, b = p.rows.view(2, -1)
    flat = p.weights.flat.clone()
    hessians = [hessian(loss_of(p, rows), flat) for rows in (a, b)]
    bend = (hessians[0] @ slope(p, b) + hessians[1] @ slope(p, a)) / 2
    found = (slope(p, p.rows) - went(p, f"bilevel:inner={inner_rate}")) * 2 / inner_rate
    torch.testing.assert_close(found, bend, rtol=0.05, atol=2e-3)


def test_bilevel_on_the_steer_set_looks_ahead_for_it():
    p = Problem()
    training = slope(p, p.rows)
    ahead = slope(p, p.steered, p.weights.flat - 0.1 * training)
    torch.testing.assert_close(went(p, "bilevel:steer=true"), (training + ahead) / 2, rtol=1e-4, atol=1e-6)
    assert (p.cost.forward_rows, p.cost.backward_rows) == (48, 48)


def test_bilevel_asks_about_the_steer_set_only_where_told_to():
    assert not RULES.parse("bilevel").steers
    assert RULES.parse("bilevel:steer=true").steers
    assert RULES.parse("bilevel:steer=true,k=8").microbatches() == 1


# -- matching


@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_matching_is_the_gradient_of_the_loss_less_an_inner_product_of_gradients(strength):
    p = Problem()
    training, steering = loss_of(p, p.rows), loss_of(p, p.steered)

    def objective(flat):
        inner_product = torch.func.grad(training)(flat) @ torch.func.grad(steering)(flat)
        return training(flat) - strength * inner_product

    expected = torch.func.grad(objective)(p.weights.flat.clone())
    torch.testing.assert_close(went(p, f"matching:strength={strength}"), expected, rtol=1e-3, atol=1e-4 * strength)


@pytest.mark.parametrize("steer", [False, True])
def test_a_hessian_along_a_direction_is_torchs(steer):
    p, rule = Problem(), RULES.parse("matching")
    direction = torch.randn(len(p.weights.flat), generator=torch.Generator().manual_seed(1))
    matrix = hessian(loss_of(p, p.steered if steer else p.rows), p.weights.flat.clone())
    found = p.ask(lambda oracle: rule.bent(oracle, p.weights.flat, direction, steer))
    torch.testing.assert_close(found, matrix @ direction, rtol=1e-3, atol=1e-3)


def test_along_no_direction_nothing_bends():
    p, rule = Problem(), RULES.parse("matching")
    found = p.ask(lambda oracle: rule.bent(oracle, p.weights.flat, torch.zeros_like(p.weights.flat), False))
    assert torch.equal(found, torch.zeros_like(found))


def test_matched_gradients_end_up_closer_than_those_of_its_base():
    """At the same number of steps; the inner product over the product of lengths."""
    cosine = {}
    for strength in (0.0, 0.5):
        p = Problem()
        p.train(RULES.parse(f"matching:strength={strength},base=sgd,base.lr=0.1"), 40)
        cosine[strength] = float(torch.cosine_similarity(slope(p, p.rows), slope(p, p.steered), dim=0))
    assert cosine[0.5] > cosine[0.0]


# -- restarts


def test_restarts_keep_the_run_with_the_lowest_steer_loss():
    """Each run made again here by its base alone, from where the rule began it."""
    rule, base = RULES.parse("restarts:copies=3,each=4"), RULES.parse("adamw")
    p = Problem()
    start = p.weights.flat.clone()
    state = p.train(rule, 13)

    ends = []
    for run in range(3):
        q = Problem()
        q.number = 4 * run
        q.weights.flat.copy_(start if run == 0 else rule.moved_start(start, q.now()))
        trained = q.train(base, 4)
        ends.append((float(q.ask(lambda oracle: oracle.loss(steer=True))), q, trained))
    lowest, best, trained = min(ends, key=lambda end: end[0])
    assert len({end[0] for end in ends}) == 3
    torch.testing.assert_close(state["lowest"], torch.tensor(lowest))
    torch.testing.assert_close(state["best"], best.weights.flat)
    best.step(base, trained)  # and on from there, with the base's state of that time
    torch.testing.assert_close(p.weights.flat, best.weights.flat)


def test_a_run_starts_near_the_start_with_a_fresh_state_and_leaves_constants_alone():
    p, rule = Problem(), RULES.parse("restarts:copies=2,each=3,spread=0.5")
    with torch.no_grad():
        p.module[0].bias.zero_()
        p.module[2].bias.fill_(1.0)
    start, state = p.weights.flat.clone(), p.start(rule)
    for _ in range(3):
        state = p.step(rule, state).state
    begun = rule.moved_start(state["start"], p.now())
    for part in p.layout.parts:
        moved, before = part.of(begun), part.of(start)
        if part.kind == "vector":
            assert torch.equal(moved, before)
        else:
            assert 0.2 < float((moved - before).std() / before.std()) < 0.8
    assert float(inner(p.step(rule, state).state)["count"]) == 1


def test_noise_at_the_start_of_a_run_has_the_size_that_it_claims():
    p, rule = Problem(), RULES.parse("restarts:spread=2")
    rms = []
    for number in range(1, 200):
        p.number = number
        rms.append(p.layout.parts[0].of(rule.moved_start(p.weights.flat, p.now()) - p.weights.flat))
    assert float(torch.stack(rms).std()) == pytest.approx(
        2 * float(p.module[0].weight.detach().std(correction=0)), rel=0.05
    )


def test_restarts_are_paid_with_a_forward_pass_over_the_steer_set_a_run():
    p, rule = Problem(), RULES.parse("restarts:copies=3,each=4")
    p.train(rule, 20)
    assert p.cost.forward_rows == 24 * (20 + 3)
    assert p.cost.backward_rows == 24 * 20


@pytest.mark.parametrize("rule", ["restarts:copies=3,each=2", "restarts:copies=3,each=1,base=momentum"])
def test_stopped_around_a_restart_a_training_is_the_same(rule):
    state = same_however_stopped(RULES.parse(rule), 20)
    assert math.isfinite(float(state["lowest"]))


def test_a_run_that_diverges_is_never_picked():
    p, rule = Problem(), RULES.parse("restarts:copies=2,each=2,base=sgd")
    state = p.start(rule)
    for _ in range(2):
        state = p.step(rule, state).state
    p.weights.flat.fill_(math.nan)
    for _ in range(3):
        state = p.step(rule, state).state
    assert p.weights.flat.isfinite().all()


def test_at_rate_zero_a_restart_moves_nothing():
    p, rule = Problem(), RULES.parse("restarts:copies=3,each=2")
    before, state = p.weights.flat.clone(), p.start(rule)
    for _ in range(8):
        state = p.step(rule, state, 0.0).state
    assert torch.equal(p.weights.flat, before)


# -- all of them


@pytest.mark.parametrize("name", ["reweight", "matching", "restarts", "bilevel:steer=true"])
def test_what_is_steered_says_so_and_asks_about_the_steer_set(name):
    rule = RULES.parse(name)
    assert rule.steers
    if name != "restarts":
        p = Problem()
        asking, asked = rule.update(Oracle(24, 24), p.weights.flat, p.start(rule), p.now()), []
        try:
            ask = next(asking)
            while True:
                asked.append(ask)
                ask = asking.send(p.answer(p.rows, ask))
        except StopIteration:
            pass
        assert any(ask.steer for ask in asked)
        assert all(isinstance(ask, Ask) for ask in asked)


@pytest.mark.parametrize(
    "text",
    ["reweight:k=1", "reweight:strength=2", "reweight:base=gaf", "bilevel:k=1", "bilevel:inner=-1", "bilevel:beta=nan",
     "matching:epsilon=0", "matching:strength=-1", "restarts:copies=0", "restarts:each=0", "restarts:spread=-1"],
)  # fmt: skip
def test_impossible_settings_are_refused_in_one_line(text):
    with pytest.raises(UserError) as error:
        RULES.parse(text)
    assert "\n" not in str(error.value)
