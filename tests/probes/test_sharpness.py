"""Curvature and sharpness against closed forms, torch.func.hessian and curvlinops."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian
from torch.nn.utils import parameters_to_vector

from crevasse.errors import UserError
from crevasse.models import MODELS
from crevasse.models.transformer import twice_differentiable
from crevasse.probes.sharpness import (
    Segment,
    adaptive_mean,
    adaptive_worst,
    directions,
    eigenvalues,
    hessian_product,
    perturbed,
    segments,
    tolerance,
    trace,
)
from crevasse.rules import RULES

SHAPES = {"0.weight": (6, 4), "0.bias": (6,), "2.weight": (3, 6), "2.bias": (3,)}


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def symmetric(values, seed=0):
    """A matrix with these eigenvalues, and its eigenvectors as columns."""
    q = torch.linalg.qr(drawn(len(values), len(values), seed=seed))[0]
    return q @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ q.T, q


def quadratic(matrix, middle):
    return lambda w: 0.5 * (w - middle) @ matrix @ (w - middle)


def network(activation):
    """Loss of a small network, and weights for it."""
    net = nn.Sequential(nn.Linear(4, 6), activation, nn.Linear(6, 3)).double()
    x, y = drawn(20, 4, seed=1), torch.arange(20) % 3
    sizes = [math.prod(shape) for shape in SHAPES.values()]

    def loss(w):
        parts = {n: p.view(s) for (n, s), p in zip(SHAPES.items(), torch.split(w, sizes), strict=True)}
        return nn.functional.cross_entropy(functional_call(net, parts, x), y)

    return loss, drawn(sum(sizes), seed=2)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_eigenvalues_of_a_quadratic_are_those_that_were_put_in_as_often_as_they_occur(count):
    values = [*torch.linspace(-3, 2, 36).tolist(), 7.0, 7.0, 7.0, 9.0]
    matrix, q = symmetric(values)
    found = eigenvalues(quadratic(matrix, drawn(40)), drawn(40, seed=1), count, seed=5, tolerance=1e-7)
    assert found.converged and found.products <= 40
    torch.testing.assert_close(found.values, torch.tensor([9.0, 7.0, 7.0, 7.0]).double()[:count])
    assert abs(float(found.vectors[0] @ q[:, -1])) == pytest.approx(1)
    torch.testing.assert_close(found.vectors @ found.vectors.T, torch.eye(count, dtype=torch.float64))


def test_where_it_stops_early_it_says_so_and_its_residuals_are_true():
    matrix, _ = symmetric(torch.linspace(0, 1, 80).square().tolist())
    found = eigenvalues(quadratic(matrix, drawn(80)), drawn(80, seed=1), 2, seed=0, tolerance=1e-9, limit=21)
    assert not found.converged and found.products == 20
    off = found.vectors @ matrix - found.values[:, None] * found.vectors
    torch.testing.assert_close(found.residuals, off.norm(dim=1))
    assert found.values[0] < 1 and found.residuals.min() > 1e-4
    assert (torch.linalg.eigvalsh(matrix) - found.values[:, None]).abs().min(1).values.le(found.residuals).all()
    whole = eigenvalues(quadratic(matrix, drawn(80)), drawn(80, seed=1), 2, seed=0, tolerance=1e-9)
    assert whole.converged and float(whole.values[0]) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("matrix", [torch.zeros(5, 5), torch.eye(5), torch.diag(torch.tensor([3.0, 0, 0, 0, 0]))])
def test_a_matrix_with_few_different_eigenvalues_is_no_trouble(matrix):
    found = eigenvalues(quadratic(matrix, torch.ones(5)), torch.zeros(5), 5, seed=0)
    assert found.converged and found.values.dtype == torch.float32
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(matrix).flip(0), atol=1e-5, rtol=1e-5)
    linear = eigenvalues(lambda w: w.sum(), torch.zeros(5), 2, seed=0)
    assert linear.converged and not linear.values.any()


def test_the_product_is_that_of_the_closed_form_of_logistic_regression():
    x, y, w = drawn(30, 5), (drawn(30, seed=1) > 0).double(), drawn(5, seed=2)
    product = hessian_product(lambda w: nn.functional.binary_cross_entropy_with_logits(x @ w, y), w)
    p = torch.sigmoid(x @ w)
    expected = x.T @ ((p * (1 - p))[:, None] * x) / 30
    torch.testing.assert_close(torch.stack([product(v) for v in torch.eye(5).double()]), expected)


def test_a_network_has_the_eigenvalues_and_the_trace_that_its_whole_hessian_has():
    loss, w = network(nn.Tanh())
    matrix = hessian(loss)(w)
    found = eigenvalues(loss, w, 4, seed=0, tolerance=1e-7)
    assert found.converged
    torch.testing.assert_close(found.values, torch.linalg.eigvalsh(matrix).flip(0)[:4])
    draws = 300
    estimate = trace(loss, w, seed=3, draws=draws)
    assert abs(estimate.value - float(matrix.trace())) < 4 * estimate.error
    spread = math.sqrt(2 * float(matrix.square().sum() - matrix.diag().square().sum()) / draws)
    assert estimate.error == pytest.approx(spread, rel=0.2)


def test_the_trace_of_a_diagonal_matrix_is_exact():
    matrix = torch.diag(torch.tensor([1.0, -2.0, 5.0]).double())
    estimate = trace(quadratic(matrix, drawn(3)), drawn(3, seed=1), seed=0, draws=4)
    assert estimate.value == pytest.approx(4) and estimate.error == pytest.approx(0, abs=1e-12) and estimate.draws == 4


def answering(text, length):
    """Loss of the last of so many tokens after a prompt, and the weights that a model begins with."""
    torch.manual_seed(0)
    model = MODELS.parse(text).build(6, length).double()
    names, shapes = zip(*((n, p.shape) for n, p in model.named_parameters()), strict=True)
    tokens = torch.randint(0, 6, (12, length), generator=torch.Generator().manual_seed(1))

    class Answer(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self):
            return model.head(model(tokens[:, :-1], torch.full((12,), 3), first=length - 2)[:, 0])

    whole = Answer()

    def loss(w):
        pieces = torch.split(w, [s.numel() for s in shapes])
        parts = {f"model.{n}": p.view(s) for n, s, p in zip(names, shapes, pieces, strict=True)}
        return nn.functional.cross_entropy(functional_call(whole, parts, ()), tokens[:, -1])

    return loss, parameters_to_vector(model.parameters()).detach()


def slope(loss, w):
    w = w.clone().requires_grad_()
    return torch.autograd.grad(loss(w), w)[0]


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("bilinear:width=3,products=4", 5),
        ("gru:width=4", 5),
        ("mlp:width=3,hidden=5", 5),
        ("transformer:width=4,heads=2", 60),
    ],
)
def test_curvature_of_our_models_is_the_difference_of_slopes(text, length):
    # Not torch.func.hessian: in torch 2.13 it is wrong in the entries of a layer norm's weights.
    loss, w = answering(text, length)
    v = drawn(len(w), seed=1)
    by_differences = (slope(loss, w + 1e-6 * v) - slope(loss, w - 1e-6 * v)) / 2e-6
    torch.testing.assert_close(hessian_product(loss, w)(v), by_differences, atol=1e-6, rtol=1e-5)


def test_what_can_be_differentiated_once_alone_is_refused_and_not_taken_for_a_constant():
    loss, w = answering("transformer:width=4,heads=2", 5)
    with pytest.raises(UserError, match="only once"):
        eigenvalues(loss, w, seed=0)
    v = drawn(len(w), seed=1)
    by_differences = (slope(loss, w + 1e-6 * v) - slope(loss, w - 1e-6 * v)) / 2e-6
    with twice_differentiable():
        product = hessian_product(loss, w)
    torch.testing.assert_close(product(v), by_differences, atol=1e-6, rtol=1e-5)


def test_curvlinops_agrees():
    curvlinops = pytest.importorskip("curvlinops")
    x, y = drawn(12, 5), drawn(12, 1, seed=1)
    line = nn.Linear(5, 1, bias=False).double()
    check = curvlinops.HessianLinearOperator(line, nn.MSELoss(), list(line.parameters()), [(x, y)])
    torch.testing.assert_close(check @ torch.eye(5).double(), 2 * x.T @ x / 12)  # itself, on a closed form
    loss, w = network(nn.Tanh())
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    nn.utils.vector_to_parameters(w, net.parameters())
    data = [(drawn(20, 4, seed=1), torch.arange(20) % 3)]
    theirs = curvlinops.HessianLinearOperator(net, nn.CrossEntropyLoss(), list(net.parameters()), data)
    product, v = hessian_product(loss, w), drawn(len(w), seed=7)
    torch.testing.assert_close(product(v), theirs @ v)


def test_a_direction_is_as_long_as_the_weights_and_with_rows_each_row_as_its_own():
    w = drawn(51)
    raw = directions(w, 3, seed=1)
    torch.testing.assert_close(raw.norm(dim=1), w.norm().expand(3))
    rows = segments(SHAPES.values())
    assert rows == [Segment(0, 6, 4), Segment(24, 6, 1), Segment(30, 3, 6), Segment(48, 3, 1)]
    by_row = directions(w, 3, seed=1, rows=rows)
    for start, height, width in rows:
        own, theirs = (v[..., start : start + height * width].unflatten(-1, (height, width)) for v in (w, by_row))
        torch.testing.assert_close(theirs.norm(dim=2), own.norm(dim=1).expand(3, -1))
    assert not directions(w, 2, seed=1, rows=rows[:1])[:, 24:].any()
    torch.testing.assert_close(directions(w.float(), 3, seed=1), raw.float())
    with pytest.raises(UserError, match="within 0 to 51"):
        directions(w, 1, seed=0, rows=[Segment(50, 1, 2)])


def test_the_radius_is_a_share_of_the_length_of_the_weights():
    w, radii = drawn(51), [0.0, 0.1, 0.5]
    found = perturbed(lambda v: torch.linalg.vector_norm(v - w), w, radii, seed=4, draws=5)
    torch.testing.assert_close(found, torch.tensor(radii).double()[:, None] * w.norm() * torch.ones(1, 5))


def rescaled(w, scales):
    """Hidden unit i times scales[i], and what is read of it divided by that."""
    a, b, c, d = torch.split(w, [24, 6, 18, 3])
    return torch.cat([(a.view(6, 4) * scales[:, None]).flatten(), b * scales, (c.view(3, 6) / scales).flatten(), d])


def test_filter_normalised_and_adaptive_sharpness_stay_when_a_layer_is_scaled_and_raw_does_not():
    loss, w = network(nn.ReLU())
    once, each = torch.full((6,), 5.0).double(), torch.logspace(-1, 1, 6).double()
    for scales in (once, each):
        torch.testing.assert_close(loss(rescaled(w, scales)), loss(w))

    def read(v, rows):
        return perturbed(loss, v, [0.1, 0.3], seed=0, draws=8, rows=rows)

    rows, moved = segments(SHAPES.values()), rescaled(w, once)
    torch.testing.assert_close(read(moved, rows), read(w, rows))
    assert ((read(moved, None) - read(w, None)).abs() > 0.01).any()
    for scales in (once, each):
        moved = rescaled(w, scales)
        assert adaptive_worst(loss, moved, 0.5, seed=0) == pytest.approx(adaptive_worst(loss, w, 0.5, seed=0))
        assert adaptive_mean(loss, moved, 0.5, seed=0).value == pytest.approx(adaptive_mean(loss, w, 0.5, seed=0).value)
    top = [float(eigenvalues(loss, v, seed=0).values[0]) for v in (w, rescaled(w, once))]
    assert top[1] > 2 * top[0]


def test_adaptive_sharpness_of_a_quadratic_at_its_lowest_point():
    matrix, _ = symmetric([0.1, 0.2, 0.5, 1.0, 4.0])
    w = drawn(5, seed=3)
    scaled = w.abs()[:, None] * matrix * w.abs()
    worst = adaptive_worst(quadratic(matrix, w), w, 0.2, seed=0, steps=60)
    assert worst == pytest.approx(0.02 * float(torch.linalg.eigvalsh(scaled)[-1]), rel=1e-6)
    mean = adaptive_mean(quadratic(matrix, w), w, 0.2, seed=0, draws=400)
    assert abs(mean.value - 0.02 * float(scaled.trace()) / 5) < 4 * mean.error < worst
    assert mean.value < worst


def test_adaptive_sharpness_of_a_slope_and_of_one_step_are_those_of_asam():
    hill, w = drawn(5), drawn(5, seed=1)
    rise = adaptive_worst(lambda v: hill @ v, w, 0.3, seed=0)
    assert rise == pytest.approx(0.3 * float((hill * w).norm()))
    loss, w = network(nn.Tanh())
    there = w + RULES.parse("asam:rho=0.3,eta=0").ascent(slope(loss, w), w)
    assert adaptive_worst(loss, w, 0.3, seed=0, steps=1) == pytest.approx(float(loss(there) - loss(w)))
    assert adaptive_worst(loss, w, 0.3, seed=0) >= float(loss(there) - loss(w))


def test_what_cannot_be_is_refused():
    w = torch.ones(3)
    for options in ({"count": 4}, {"count": 0}, {"tolerance": 0}, {"count": 2, "limit": 1}):
        with pytest.raises(UserError):
            eigenvalues(lambda v: v @ v, w, seed=0, **options)
    for measure in (trace, lambda *a, **k: adaptive_mean(*a, 0.1, **k)):
        with pytest.raises(UserError, match="at least 2 draws"):
            measure(lambda v: v @ v, w, seed=0, draws=1)
    with pytest.raises(UserError, match="at least one step"):
        adaptive_worst(lambda v: v @ v, w, 0.1, seed=0, steps=0)


def test_the_seed_alone_decides():
    loss, w = network(nn.Tanh())
    for measure in (
        lambda s: trace(loss, w, seed=s, draws=3).value,
        lambda s: float(perturbed(loss, w, [1], seed=s)[0, 0]),
    ):
        first, again, other = (measure(s) for s in (1, 1, 2))
        assert first == again != other


@pytest.mark.parametrize(
    ("right", "radius"),
    [
        ([1, 0.95, 0.8], 0.1 + 0.1 * 0.05 / 0.15),
        ([1, 0.8, 1], 0.05),  # the first fall counts
        ([1, 1, 0.95], 0.2),
        ([0.9, 0.9, 0.9], 0.2),
        ([0.5, 0.2, 0], 0),
    ],
)
def test_the_tolerance_is_where_fewer_than_nine_of_ten_answers_are_left(right, radius):
    assert tolerance([0.0, 0.1, 0.2], right, 0.9) == pytest.approx(radius)
