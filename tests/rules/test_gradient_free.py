"""Rules that ask for losses alone, on losses whose gradients are known in closed form."""

import itertools

import pytest
import torch
from problem import Problem

from crevasse.errors import UserError
from crevasse.rules import RULES, Layout, Oracle, Part, Seen, Step, answered
from crevasse.rules.es import perturbation

LAYOUT = Layout((Part("a", 0, (3, 4), "matrix"), Part("b", 12, (3,), "vector"), Part("c", 15, (5, 2), "embedding")))


def asked(rule, loss, weights, number=0, layout=None):
    """The gradient that a base of rate 1 was given, and all places that were asked about. loss: of weights, exact"""
    places = []

    def answer(ask):
        assert not ask.slopes
        places.append(ask.at.clone())
        return Seen(loss(ask.at.double()).reshape(1))

    layout = layout or Layout.flat(len(weights))
    update = answered(rule.update(Oracle(8), weights, rule.init(weights, layout), Step(layout, 1.0, number, 5)), answer)
    return weights - update.weights, torch.stack(places), update


def both(options=""):
    return [f"es:pairs=1,base=sgd,base.lr=1{options}", f"mezo:base=sgd,base.lr=1{options}"]


@pytest.mark.parametrize(
    "text", [*both(), "mezo:noise=sign,base=sgd,base.lr=1", "es:pairs=4,rank=2,base=sgd,base.lr=1"]
)
def test_on_a_linear_loss_the_estimate_is_unbiased(text):
    """Mean over many steps against the slope itself: within five standard errors in every entry."""
    g = torch.Generator().manual_seed(0)
    slope, weights = torch.randn(LAYOUT.size, generator=g), torch.zeros(LAYOUT.size)
    rule = RULES.parse(text)
    found = torch.stack([asked(rule, lambda w: w @ slope.double(), weights, n, LAYOUT)[0] for n in range(1500)])
    error = found.std(0) / len(found) ** 0.5
    assert (abs(found.mean(0) - slope) < 5 * error).all()
    assert float(error.max()) < 0.4


@pytest.mark.parametrize(
    "text", [*both(), "mezo:noise=sign,base=sgd,base.lr=1", "es:pairs=5,rank=none,base=sgd,base.lr=1"]
)
def test_on_a_quadratic_the_estimate_is_the_slope_along_each_direction(text):
    """(L(w + e) − L(w − e))/2 is exactly ⟨∇L, e⟩ there, so no third of the directions' sizes is lost."""
    g = torch.Generator().manual_seed(1)
    half, weights = torch.randn(7, 7, generator=g), torch.randn(7, generator=g)
    matrix = (half @ half.T).double()
    found, places, update = asked(RULES.parse(text), lambda w: w @ matrix @ w / 2, weights)
    away = places - weights
    assert torch.allclose(away[::2], -away[1::2], atol=1e-6)  # antithetic
    directions = away[::2].double() / (0.01 if text.startswith("es") else 0.001)
    expected = torch.stack([(matrix @ weights.double() @ d) * d for d in directions]).mean(0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-2, atol=1e-2)
    losses = torch.stack([w @ matrix @ w / 2 for w in places.double()])
    assert float(update.loss) == pytest.approx(float(losses.mean()), rel=1e-5)


def test_over_all_directions_of_signs_spsa_is_the_gradient_of_a_linear_loss():
    slope = torch.tensor([3.0, -1.0, 0.5])
    directions = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)))
    torch.testing.assert_close(((directions @ slope)[:, None] * directions).mean(0), slope)
    rule, seen = RULES.parse("mezo:noise=sign,base=sgd,base.lr=1"), set()
    for number in range(100):
        found, places, _ = asked(rule, lambda w: w @ slope.double(), torch.zeros(3), number)
        sign = (places[0] / 1e-3).round()
        seen.add(tuple(sign.tolist()))
        torch.testing.assert_close(found, (sign @ slope) * sign, rtol=1e-4, atol=1e-4)
    assert seen == {tuple(d.tolist()) for d in directions}


@pytest.mark.parametrize("rank", [1, 2])
def test_the_noise_of_a_matrix_has_no_more_than_its_rank(rank):
    noise = perturbation(LAYOUT, rank, torch.Generator().manual_seed(0))
    for part in (LAYOUT.parts[0], LAYOUT.parts[2]):
        assert int(torch.linalg.matrix_rank(part.of(noise))) == min(rank, *part.shape)
    full = perturbation(LAYOUT, None, torch.Generator().manual_seed(0))
    assert int(torch.linalg.matrix_rank(LAYOUT.parts[0].of(full))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 3, None])
def test_noise_of_any_rank_has_variance_one_and_entries_that_are_uncorrelated(rank):
    g = torch.Generator().manual_seed(0)
    drawn = torch.stack([perturbation(LAYOUT, rank, g) for _ in range(20_000)])
    torch.testing.assert_close(drawn.T @ drawn / len(drawn), torch.eye(LAYOUT.size), rtol=0, atol=0.1)


@pytest.mark.parametrize("rank", ["1", "none"])
def test_with_more_pairs_the_estimate_turns_toward_the_gradient(rank):
    p = Problem()
    gradient = p.ask(Oracle.gradient)[1]
    cosines = []
    for pairs in (4, 64, 2048):
        rule = RULES.parse(f"es:pairs={pairs},rank={rank},base=sgd,base.lr=1")
        cosines.append(float(torch.cosine_similarity(p.weights.flat - p.update(rule, {}).weights, gradient, dim=0)))
    assert cosines == sorted(cosines)
    assert cosines[-1] > 0.97


def test_cosines_of_estimates_are_about_the_root_of_directions_over_weights():
    """Gaussian directions span a random subspace: what the docstring says not to expect more of."""
    slope, weights = torch.ones(400), torch.zeros(400)
    rule = RULES.parse("es:pairs=16,rank=none,base=sgd,base.lr=1")
    found = [asked(rule, lambda w: w @ slope.double(), weights, n)[0] for n in range(30)]
    mean = torch.stack([torch.cosine_similarity(f, slope, dim=0) for f in found]).mean()
    assert float(mean) == pytest.approx((16 / 400) ** 0.5, rel=0.15)


def test_a_slope_of_one_direction_is_the_root_of_all_weights_longer():
    slope, weights = torch.ones(400), torch.zeros(400)
    rule = RULES.parse("mezo:base=sgd,base.lr=1")
    found = torch.stack([asked(rule, lambda w: w @ slope.double(), weights, n)[0] for n in range(200)])
    assert float(found.square().sum(1).mean().sqrt() / slope.norm()) == pytest.approx(400**0.5, rel=0.1)


@pytest.mark.parametrize("name", ["es", "mezo"])
def test_nothing_goes_backward_and_each_step_looks_elsewhere(name):
    p, rule = Problem(), RULES.parse(name)
    p.train(rule, 3)
    assert p.cost.backward_rows == 0
    weights = torch.zeros(9)
    _, first, _ = asked(rule, lambda w: w.sum(), weights, 0)
    _, again, _ = asked(rule, lambda w: w.sum(), weights, 0)
    _, second, _ = asked(rule, lambda w: w.sum(), weights, 1)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert len(first) == 2 * getattr(rule, "pairs", 1)


@pytest.mark.parametrize(
    "text", ["es:pairs=0", "es:sigma=0", "es:rank=0", "mezo:epsilon=0", "mezo:noise=loud", "es:base=es"]
)
def test_impossible_settings_are_refused_in_one_line(text):
    with pytest.raises(UserError) as error:
        RULES.parse(text)
    assert "\n" not in str(error.value)
