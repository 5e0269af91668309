"""Lines, curves, planes and alignment against closed forms, scipy and brute force."""

import itertools

import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from crevasse.errors import UserError
from crevasse.models import MODELS
from crevasse.probes.landscape import align, bezier, curve, line, permuted, plane, train_bend

MODEL_TEXTS = [
    "bilinear:width=7,products=11", "gru:width=8", "lstm:width=6,layers=3", "mlp:width=5,hidden=9,layers=3",
    "mlp:width=5,hidden=9,embeddings=shared", "transformer:width=8,heads=2", "transformer:width=8,position=rotary",
    "looped:width=8,position=first,loops=2",
    "looped:width=8,heads=2,position=none",
]  # fmt: skip


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def point(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def test_a_line_reads_the_loss_where_it_says():
    a, b = drawn(6), drawn(6, seed=1)
    found = line(lambda w: w @ w, a, b, points=5)
    assert found.t.tolist() == [0, 0.25, 0.5, 0.75, 1]
    expected = [float(((1 - t) * a + t * b).square().sum()) for t in found.t.tolist()]
    assert found.losses.tolist() == pytest.approx(expected)
    with pytest.raises(UserError, match="at least 2 points"):
        line(lambda w: w @ w, a, b, points=1)


def test_a_barrier_is_what_rises_above_the_straight_line_between_the_ends():
    assert line(lambda w: (w**2 - 1).square().sum(), point(-1), point(1)).barrier == pytest.approx(1)
    tilted = line(lambda w: ((w**2 - 1).square() + 3 * w).sum(), point(-1), point(1))
    assert tilted.barrier == pytest.approx(1)
    assert line(lambda w: w @ w, drawn(4), drawn(4, seed=1)).barrier == 0
    assert line(lambda w: 5 * w.sum(), point(0), point(1)).barrier == pytest.approx(0)


def ring(w):
    """Zero at distance 1 from the origin."""
    return (torch.linalg.vector_norm(w) - 1).square()


def test_a_trained_bend_is_the_one_with_the_lowest_mean_loss():
    a, b = point(1, 0), point(0, 1)

    def mean(bend):
        return quad(lambda t: float(ring(bezier(a, torch.from_numpy(bend), b, t))), 0, 1)[0]

    best = minimize(mean, [0.5, 0.5], method="Nelder-Mead")
    bend = train_bend(ring, a, b, seed=0, steps=500, rate=0.05)
    torch.testing.assert_close(bend, torch.from_numpy(best.x), atol=0.02, rtol=0)
    way, straight = curve(ring, a, bend, b), line(ring, a, b)
    assert straight.barrier == pytest.approx((1 - 0.5**0.5) ** 2)
    assert way.barrier < straight.barrier / 50
    torch.testing.assert_close(bezier(a, bend, b, 0), a)
    torch.testing.assert_close(bezier(a, bend, b, 1), b)
    torch.testing.assert_close(curve(ring, a, (a + b) / 2, b).losses, straight.losses)
    assert torch.equal(train_bend(ring, a, b, seed=3, steps=5), train_bend(ring, a, b, seed=3, steps=5))
    with pytest.raises(UserError, match="at least one step"):
        train_bend(ring, a, b, seed=0, steps=0)


def test_a_plane_goes_through_its_three_points():
    a, b, c = (drawn(9, seed=s) for s in range(3))
    found = plane(lambda w: (w - b) @ (w - b), a, b, c, points=7, margin=0.5)
    torch.testing.assert_close(found.axes @ found.axes.T, torch.eye(2).double())
    for weights, corner in zip((a, b, c), found.corners, strict=True):
        torch.testing.assert_close(a + corner @ found.axes, weights)
        torch.testing.assert_close(found.place(weights), corner)
    # On it the loss is the squared distance to b, by Pythagoras.
    expected = (found.x - found.corners[1, 0]) ** 2 + (found.y[:, None] - found.corners[1, 1]) ** 2
    torch.testing.assert_close(found.losses, expected)
    low, high = found.corners.min(0).values, found.corners.max(0).values
    for axis, grid in enumerate((found.x, found.y)):
        reach = float(high[axis] - low[axis]) / 2
        assert [float(grid[0]), float(grid[-1])] == pytest.approx([float(low[axis]) - reach, float(high[axis]) + reach])


def test_a_plane_through_points_that_are_almost_on_a_line_has_orthonormal_axes():
    a, b, e = (drawn(9, seed=s) for s in range(3))
    found = plane(lambda w: w @ w, a, b, a + 1e3 * (b - a) + 1e-8 * e, points=2)
    torch.testing.assert_close(found.axes @ found.axes.T, torch.eye(2).double())


def test_three_points_on_a_line_span_no_plane():
    a, b = drawn(9), drawn(9, seed=1)
    for three in [(a, b, a + 0.3 * (b - a)), (a, a, b), (a, b, a), (a, b, b)]:
        with pytest.raises(UserError, match="no plane"):
            plane(lambda w: w @ w, *three)


def build(text):
    """A model, and what it answers to some tokens with given weights."""
    torch.manual_seed(0)
    model = MODELS.parse(text).build(11, 7).double()
    tokens = torch.randint(0, 11, (8, 6), generator=torch.Generator().manual_seed(1))

    @torch.no_grad()
    def answer(weights):
        vector_to_parameters(weights, model.parameters())
        return model.head(model(tokens, torch.full((8,), 3), first=5)[:, 0])

    return model, {n: p.shape for n, p in model.named_parameters()}, answer


def shuffled(units, seed):
    g = torch.Generator().manual_seed(seed)
    return [torch.randperm(size, generator=g) for size, _ in units]


@pytest.mark.parametrize("text", MODEL_TEXTS)
def test_a_model_with_its_units_in_another_order_is_the_same_function(text):
    model, shapes, answer = build(text)
    own = parameters_to_vector(model.parameters()).detach()
    weights = own + 0.3 * drawn(len(own), seed=2)  # norms and biases begin alike
    units, expected = model.units(), answer(weights)
    for i in range(len(units)):  # each set by itself, and the last time all
        orders = [o if i in (j, len(units) - 1) else torch.arange(len(o)) for j, o in enumerate(shuffled(units, 3))]
        moved = permuted(weights, shapes, units, orders)
        assert (moved - weights).norm() > 0.1 * weights.norm() / len(units)
        torch.testing.assert_close(answer(moved), expected)


@pytest.mark.parametrize("text", MODEL_TEXTS)
def test_align_undoes_any_order_exactly(text):
    model, shapes, _ = build(text)
    own = parameters_to_vector(model.parameters()).detach()
    a, units = own + 0.1 * drawn(len(own), seed=2), model.units()
    orders = shuffled(units, 4)
    b = permuted(a, shapes, units, orders)
    found, back = align(a, b, shapes, units, seed=0)
    assert torch.equal(found, a)
    assert all(torch.equal(o[i], torch.arange(len(o))) for o, i in zip(orders, back, strict=True))
    near = b + 0.01 * drawn(len(b), seed=5)
    found, again = align(a, near, shapes, units, seed=1)
    assert all(torch.equal(x, y) for x, y in zip(back, again, strict=True))
    assert torch.equal(found, permuted(near, shapes, units, again))


def test_one_hidden_layer_gets_the_best_of_all_orders():
    shapes = {"up": (5, 3), "bias": (5,), "down": (2, 5)}
    units = [(5, (("up", 0, 0), ("bias", 0, 0), ("down", 1, 0)))]
    for seed in range(5):
        a, b = drawn(30, seed=seed), drawn(30, seed=seed + 50)
        found, _ = align(a, b, shapes, units, seed=0)
        every = (permuted(b, shapes, units, [torch.tensor(o)]) for o in itertools.permutations(range(5)))
        assert float((found - a).norm()) == pytest.approx(min(float((x - a).norm()) for x in every))


def test_aligned_strangers_are_nearer_and_the_same_function():
    model, shapes, answer = build("gru:width=8,layers=2")
    size = sum(s.numel() for s in shapes.values())
    a, b = drawn(size), drawn(size, seed=1)
    found, orders = align(a, b.float(), shapes, model.units(), seed=0)
    assert found.dtype == torch.float32
    assert (found - a).norm() < (b - a).norm()
    torch.testing.assert_close(answer(permuted(b, shapes, model.units(), orders)), answer(b))


def test_shapes_must_fit():
    with pytest.raises(UserError, match="do not fit"):
        align(drawn(5), drawn(5), {"a": (2, 3)}, [], seed=0)


def test_a_model_that_knows_no_units_stays_as_it_is():
    torch.manual_seed(0)
    model = MODELS.parse("conv:channels=2,shades=2").build(5, 17)
    w = parameters_to_vector(model.parameters()).detach()
    shapes = {n: p.shape for n, p in model.named_parameters()}
    assert torch.equal(align(w, w.flip(0), shapes, model.units(), seed=0)[0], w.flip(0))
