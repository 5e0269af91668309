"""Looking around, shaking and compressing: by properties, closed forms and other implementations."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from problem import Problem
from pytorch_optimizer import SAM
from sklearn.linear_model import Lasso
from torch import nn

from crevasse.errors import UserError
from crevasse.rules import RULES, BaseRule, Layout, Oracle, Seen, Step, answered
from crevasse.rules.layout import Part
from crevasse.rules.quantise import rounded


class Quadratic:
    """loss(w) = ½ wᵀAw, asked without any data."""

    def __init__(self, size=5, seed=0):
        g = torch.Generator().manual_seed(seed)
        root = torch.randn(size, size, generator=g)
        self.matrix, self.weights = root @ root.T, torch.randn(size, generator=g)
        self.asked = []

    def answer(self, ask):
        self.asked.append(ask)
        at = self.weights if ask.at is None else ask.at
        slope = self.matrix @ at
        return Seen((0.5 * at @ slope)[None], slope[None])

    def update(self, rule, number=0):
        layout = Layout.flat(len(self.weights))
        asking = rule.update(Oracle(1), self.weights, rule.init(self.weights, layout), Step(layout, 1.0, number, 3))
        return answered(asking, self.answer)


@dataclass(frozen=True)
class Uneven(BaseRule):
    """Gradient descent with a rate of its own for each weight."""

    name: ClassVar[str] = "uneven"

    def init(self, weights, layout):
        return {}

    def rate(self, step):
        return step.scale * torch.arange(step.layout.size) / step.layout.size

    def apply(self, gradient, weights, state, step):
        return weights - self.rate(step) * gradient, state


def applied(rule, weights, step, gradient=None):
    """One step of a rule of one gradient, which is zero."""
    state = rule.init(weights, step.layout)
    return rule.apply(torch.zeros_like(weights) if gradient is None else gradient, weights, state, step)[0]


# sharpness


@pytest.mark.parametrize(
    ("text", "adaptive", "rho"), [("sam", False, 0.05), ("sam:rho=0.5", False, 0.5), ("asam:eta=0", True, 0.5)]
)
@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_two_passes_are_anothers_sam(text, adaptive, rho, base):
    """pytorch_optimizer's adaptive form is without eta."""
    ours, theirs = Problem(), Problem()
    rule = RULES.parse(f"{text}{',' if ':' in text else ':'}base={base},base.lr=0.05,base.decay=0.01")
    inner, options = {
        "sgd": (torch.optim.SGD, {"lr": 0.05, "weight_decay": 0.01}),
        "adamw": (torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.01, "betas": (0.9, 0.98)}),
    }[base]
    reference = SAM(list(theirs.module.parameters()), inner, rho=rho, adaptive=adaptive, **options)

    def closure():
        reference.zero_grad()
        loss = theirs.loss(theirs.rows)
        loss.backward()
        return loss

    state = ours.start(rule)
    for _ in range(20):
        state = ours.step(rule, state).state
        closure()
        reference.step(closure)
        theirs_now = nn.utils.parameters_to_vector(theirs.module.parameters())
        torch.testing.assert_close(ours.weights.flat, theirs_now, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rho", [0.0, 0.05, 1.0])
def test_sam_on_a_quadratic_is_its_closed_form(rho):
    q = Quadratic()
    slope = q.matrix @ q.weights
    expected = q.weights - 0.1 * q.matrix @ (q.weights + rho * slope / slope.norm())
    update = q.update(RULES.parse(f"sam:rho={rho},base=sgd"))
    torch.testing.assert_close(update.weights, expected)
    torch.testing.assert_close(update.loss, 0.5 * q.weights @ slope)


def test_asam_on_a_quadratic_is_its_closed_form():
    q = Quadratic()
    slope, reach = q.matrix @ q.weights, q.weights.abs() + 0.01
    around = 0.5 * reach**2 * slope / math.sqrt(sum((reach * slope).square().tolist()))
    torch.testing.assert_close(
        q.update(RULES.parse("asam:base=sgd")).weights, q.weights - 0.1 * q.matrix @ (q.weights + around)
    )


def test_asams_way_does_not_change_when_weights_are_rescaled():
    g = torch.Generator().manual_seed(0)
    rule = RULES.parse("asam:eta=0")
    gradient, weights = torch.randn(2, 40, generator=g)
    by = torch.rand(40, generator=g) * 10 + 0.1
    # A function of w/by has its gradient divided by it.
    torch.testing.assert_close(rule.ascent(gradient / by, weights * by), by * rule.ascent(gradient, weights))


@pytest.mark.parametrize("name", ["sam", "asam"])
def test_the_way_is_as_long_as_rho_and_uphill(name):
    g = torch.Generator().manual_seed(0)
    rule = RULES.parse(f"{name}:rho=0.3")
    gradient, weights = torch.randn(2, 40, generator=g)
    around = rule.ascent(gradient, weights)
    reach = torch.ones(40) if name == "sam" else weights.abs() + 0.01
    assert float((around / reach).norm()) == pytest.approx(0.3, rel=1e-4)
    for _ in range(100):  # none of that length is steeper
        other = torch.randn(40, generator=g)
        assert gradient @ (0.3 * reach * other / other.norm()) < gradient @ around


@pytest.mark.parametrize("text", ["sam", "asam", "sam:rho=0", "asam:eta=0"])
def test_where_nothing_slopes_there_is_nowhere_to_look(text):
    q = Quadratic()
    q.weights.zero_()
    assert q.update(RULES.parse(text)).weights.tolist() == [0.0] * 5


@pytest.mark.parametrize("name", ["sam", "asam"])
def test_the_loss_is_the_one_before_the_step(name):
    p = Problem()
    update = p.update(RULES.parse(name), p.start(RULES.parse(name)))
    torch.testing.assert_close(update.loss, p.ask(Oracle.loss))


# noise


@pytest.mark.parametrize("temperature", [1e-4, 0.3])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_langevin_noise_has_the_variance_of_its_formula(temperature, scale):
    size = 200_000
    step = Step(Layout.flat(size), scale, seed=1)
    moved = applied(RULES.parse(f"sgld:temperature={temperature},base.lr=0.02"), torch.zeros(size), step)
    variance = 2 * 0.02 * scale * temperature
    assert float(moved.var()) == pytest.approx(variance, rel=0.02)
    assert abs(float(moved.mean())) < 5 * math.sqrt(variance / size)
    assert float((moved / math.sqrt(variance)).pow(4).mean()) == pytest.approx(3, rel=0.05)  # as normal numbers have


def test_langevin_noise_comes_to_rest_at_its_temperature():
    """On ½·a·w² the variance is T/a, over 1 − lr·a/2 for steps that are not small (an autoregression's)."""
    size, a, temperature, lr = 50_000, 2.0, 0.05, 0.1
    rule, weights = RULES.parse(f"sgld:temperature={temperature},base.lr={lr}"), torch.zeros(size)
    for number in range(60):
        weights = applied(rule, weights, Step(Layout.flat(size), number=number), a * weights)
    assert float(weights.var()) == pytest.approx(temperature / a / (1 - lr * a / 2), rel=0.03)


def test_langevin_noise_follows_the_rate_of_each_weight():
    size = 200_000
    moved = applied(RULES.cls("sgld")(base=Uneven(), temperature=0.1), torch.zeros(size), Step(Layout.flat(size)))
    for share in (0.0, 0.3, 0.9):
        piece = moved[int(share * size) : int((share + 0.1) * size)]
        assert float(piece.var()) == pytest.approx(2 * 0.1 * (share + 0.05), rel=0.04)


@pytest.mark.parametrize("text", ["sgld", "weight-noise"])
def test_the_same_step_has_the_same_noise_and_another_has_other(text):
    q, rule = Quadratic(), RULES.parse(f"{text}:base=sgd")
    one, same, other = (q.update(rule, number).weights for number in (4, 4, 5))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_label_noise_learns_the_labels_that_were_swapped():
    """At a share of 1 the small problem hands every label on to the next row: written out by torch alone."""
    p, q = Problem(), Problem()
    rule = RULES.parse("label-noise:p=1,base=sgd")
    update = p.update(rule, p.start(rule))
    loss = nn.functional.cross_entropy(q.module(q.x[:24]), q.y[:24].roll(1))
    slopes = torch.cat([v.flatten() for v in torch.autograd.grad(loss, list(q.module.parameters()))])
    torch.testing.assert_close(update.loss, loss.detach())
    torch.testing.assert_close(update.weights, p.weights.flat - 0.1 * slopes)


def test_label_noise_is_asked_for_by_its_share_and_in_one_question():
    q = Quadratic()
    q.update(RULES.parse("label-noise:p=0.3"))
    assert [(ask.swapped, ask.parts, ask.at) for ask in q.asked] == [(0.3, 1, None)]


@pytest.mark.parametrize("relative", [False, True])
def test_weights_are_shaken_by_sigma_and_stay(relative):
    size = 100_000
    layout, weights = Layout.flat(size), torch.linspace(-2, 2, size)
    rule = RULES.parse(f"weight-noise:sigma=0.1,relative={relative},base=sgd")
    asking = rule.update(Oracle(1), weights, {}, Step(layout))
    noise = next(asking).at - weights
    with pytest.raises(StopIteration) as end:
        asking.send(Seen(torch.zeros(1), torch.ones(1, size)))
    torch.testing.assert_close(end.value.value.weights, weights - 0.1)
    for piece, at in zip(noise.split(size // 10), weights.split(size // 10), strict=True):
        expected = 0.1 * (float(at.square().mean().sqrt()) if relative else 1)
        assert float(piece.std()) == pytest.approx(expected, rel=0.05)


def test_at_shaken_weights_the_mean_gradient_is_that_of_the_smoothed_loss():
    """Of w⁴/4 smoothed by a normal curve: w³ + 3·sigma²·w."""
    size, sigma = 200_000, 0.5
    weights = torch.full((size,), 1.2)
    rule = RULES.parse(f"weight-noise:sigma={sigma},base=sgd,base.lr=1")
    update = answered(
        rule.update(Oracle(1), weights, {}, Step(Layout.flat(size))),
        lambda ask: Seen(torch.zeros(1), ask.at[None] ** 3),
    )
    assert float((weights - update.weights).mean()) == pytest.approx(1.2**3 + 3 * sigma**2 * 1.2, rel=0.02)


# compression


def test_l1_with_gradient_descent_finds_the_lasso():
    g = np.random.default_rng(0)
    x = g.standard_normal((60, 12)).astype(np.float32)
    y = x @ np.array([3, -2, 1, *[0] * 9], np.float32) + g.standard_normal(60).astype(np.float32)
    lasso = (
        Lasso(alpha=0.2, fit_intercept=False, tol=1e-10, max_iter=100_000).fit(x.astype(float), y.astype(float)).coef_
    )
    rule, weights, step = (
        RULES.parse("l1:strength=0.2,vectors=true,base=sgd,base.lr=0.1"),
        torch.zeros(12),
        Step(Layout.flat(12)),
    )
    for _ in range(1500):
        slope = torch.from_numpy(x.T @ (x @ weights.numpy() - y)) / 60
        weights = applied(rule, weights, step, slope)
    np.testing.assert_allclose(weights, lasso, atol=1e-4)
    assert ((weights == 0).numpy() == (lasso == 0)).all() and (weights == 0).sum() >= 5


@pytest.mark.parametrize("base", [RULES.parse("sgd:lr=0.1"), Uneven()])
def test_the_threshold_is_strength_times_rate_and_leaves_biases(base):
    layout = Layout((Part("w", 0, (4, 5), "matrix"), Part("b", 20, (4,), "vector")))
    step, weights = Step(layout, 0.5), torch.linspace(-0.1, 0.1, 24)
    rates = base.rate(step) * torch.ones(24)
    moved = applied(RULES.cls("l1")(base=base, strength=1.0), weights, step)
    for i, (w, rate, m) in enumerate(zip(*[v.tolist() for v in (weights, rates, moved)], strict=True)):
        expected = w if i >= 20 else math.copysign(max(0.0, abs(w) - rate), w)
        assert m == pytest.approx(expected, abs=1e-7)


def test_compression_is_weight_decay_of_the_matrices_once_it_is_on():
    ours, theirs = Problem(), Problem()
    rule = RULES.parse("delayed-compression:strength=0.05,below=1e6,base=sgd")
    groups = [{"params": [v for v in theirs.module.parameters() if (v.dim() > 1) == matrix],
               "weight_decay": 0.1 * matrix} for matrix in (True, False)]  # fmt: skip
    reference, state = torch.optim.SGD(groups, 0.1), ours.start(rule)
    for _ in range(20):
        state = ours.step(rule, state).state
        reference.zero_grad()
        theirs.loss(theirs.rows).backward()
        reference.step()
        torch.testing.assert_close(ours.weights.flat, nn.utils.parameters_to_vector(theirs.module.parameters()))


@pytest.mark.parametrize("latch", [False, True])
def test_compression_waits_for_a_low_smoothed_training_loss(latch):
    layout = Layout((Part("w", 0, (2, 2), "matrix"),))
    rule = RULES.parse(f"delayed-compression:strength=0.5,below=1,smooth=0.5,latch={latch},base=sgd,base.lr=0.1")
    weights = torch.ones(4)
    state, pulled = rule.init(weights, layout), []
    # smoothed:        2.0  2.0  1.1  1.05  0.525  0.51  1.26   1.88  0.94
    for number, loss in enumerate([2, 2, 0.2, 1, 0, 0.5, 2, 2.5, 0]):
        update = answered(
            rule.update(Oracle(1), weights, state, Step(layout, number=number)),
            lambda ask, loss=loss: Seen(torch.tensor([float(loss)]), torch.zeros(1, 4)),
        )
        pulled.append(not torch.equal(update.weights, weights))
        if pulled[-1]:
            torch.testing.assert_close(update.weights, weights * 0.9)  # 2·strength·rate
        assert float(update.loss) == pytest.approx(loss)
        state = update.state
    assert pulled == [False] * 4 + [True] * 2 + [latch] * 2 + [True]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rounding_is_torchs_own_per_channel(bits):
    matrix, top = torch.randn(30, 17, generator=torch.Generator().manual_seed(bits)), 2 ** (bits - 1) - 1
    unit = matrix.abs().amax(1) / top
    theirs = torch.fake_quantize_per_channel_affine(matrix, unit, torch.zeros(30, dtype=torch.int32), 0, -top, top)
    torch.testing.assert_close(rounded(matrix, bits), theirs)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rounded_weights_are_few_and_near_and_stay(bits):
    matrix = torch.randn(10, 2000, generator=torch.Generator().manual_seed(bits))
    matrix[3] = 0
    found = rounded(matrix, bits)
    top = 2 ** (bits - 1) - 1
    assert all(len(row.unique()) <= 2 * top + 1 for row in found)
    assert ((found - matrix).abs() <= matrix.abs().amax(1, keepdim=True) / top / 2 * 1.0001).all()
    torch.testing.assert_close(rounded(found, bits), found)
    torch.testing.assert_close(rounded(-matrix, bits), -found)


def test_weights_are_rounded_at_their_time_and_trained_in_between():
    p = Problem()
    rule = RULES.parse("quantise:bits=3,every=4,start=2,base=sgd")
    for made in range(1, 13):
        p.number = made - 1
        slope = p.ask(Oracle.gradient)[1]
        expected = p.weights.flat - 0.1 * slope
        if made in (6, 10):
            expected = p.layout.map(lambda part, w: w if part.kind == "vector" else rounded(w, 3), expected)
        p.weights.flat.copy_(p.update(rule, {}).weights)
        torch.testing.assert_close(p.weights.flat, expected)


def test_at_rate_zero_nothing_is_rounded():
    weights = torch.randn(40, generator=torch.Generator().manual_seed(0))
    step = Step(Layout((Part("w", 0, (2, 20), "matrix"),)), scale=0.0)
    assert torch.equal(applied(RULES.parse("quantise:bits=2,every=1,base=sgd"), weights, step), weights)


@pytest.mark.parametrize("per", ["row", "part"])
def test_the_grid_belongs_to_a_row_or_to_a_part_and_biases_have_none(per):
    layout = Layout((Part("w", 0, (3, 40), "embedding"), Part("b", 120, (5,), "vector")))
    weights = torch.randn(125, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 3, 125)
    moved = applied(RULES.parse(f"quantise:bits=3,every=1,per={per},base=sgd"), weights, Step(layout))
    assert torch.equal(moved[120:], weights[120:])
    before, after = weights[:120].view(3, 40), moved[:120].view(3, 40)
    unit = before.abs().amax(1, keepdim=True) / 3 if per == "row" else before.abs().max() / 3
    torch.testing.assert_close(after, (before / unit).round() * unit)


@pytest.mark.parametrize(
    "text", ["sam:rho=-1", "sam:rho=nan", "asam:eta=-1", "asam:base=sam", "sgld:temperature=-1", "label-noise:p=1.5",
             "weight-noise:sigma=-1", "l1:strength=nan", "delayed-compression:below=-1", "delayed-compression:smooth=1",
             "quantise:bits=1", "quantise:every=0", "quantise:start=-1", "quantise:per=column"],
)  # fmt: skip
def test_impossible_settings_are_refused_in_one_line(text):
    with pytest.raises(UserError) as error:
        RULES.parse(text)
    assert "\n" not in str(error.value)
