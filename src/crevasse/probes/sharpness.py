"""How curved a loss is at some weights, and how far it rises near by.

Pure functions of a loss over one flat vector of weights, in the vector's own precision; what is drawn depends on `seed`
alone. Curvature (`hessian_product` and what is built on it) changes when a ReLU layer is scaled up and the next one
down, although the function does not; measures by the size of rows (`segments`) or of weights (`adaptive_…`) do not.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from crevasse.spec import require

#: Weights (weight,) -> loss (), twice differentiable where curvature is asked for.
Loss = Callable[[Tensor], Tensor]


class Segment(NamedTuple):
    """Numbers of a flat vector that are a matrix."""

    start: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Spectrum:
    """The largest eigenvalues of a symmetric matrix, as far as they were found."""

    values: Tensor  # (eigenvalue,) largest first
    vectors: Tensor  # (eigenvalue, weight) of length 1, orthogonal
    residuals: Tensor  # (eigenvalue,) ‖Hv − λv‖: so near to each value there is an eigenvalue
    converged: bool  # is every residual within the tolerance?
    products: int  # Hessian-vector products that it took


@dataclass(frozen=True)
class Estimate:
    """A mean over draws."""

    value: float
    error: float  # its standard error
    draws: int


def segments(shapes: Iterable[Sequence[int]]) -> list[Segment]:
    """The rows of parameters of these shapes that lie one after another without a gap, as in `module.parameters()`.

    A kernel's further axes are columns. Of a bias or a norm each number is a row: it belongs to a unit of its own.
    """
    found, start = [], 0
    for shape in shapes:
        size = torch.Size(shape).numel()
        rows = shape[0] if len(shape) > 1 else size
        found.append(Segment(start, rows, size // rows if rows else 0))
        start += size
    return found


def hessian_product(loss: Loss, weights: Tensor) -> Callable[[Tensor], Tensor]:
    """The product of the Hessian at these weights with a vector, (weight,) -> (weight,), by double backward.

    The graph of the gradient is built once and held as long as the function is. Raises UserError where a part of the
    loss says of itself that it can be differentiated only once.
    """
    at = weights.detach().clone().requires_grad_()
    # Of torch's forms of attention only the plain one can be differentiated twice.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        (slope,) = torch.autograd.grad(loss(at), at, create_graph=True)
    require(_twice(slope), "a part of this loss can be differentiated only once, so its curvature cannot be read")

    def product(vector: Tensor) -> Tensor:
        if not slope.requires_grad:  # of a loss without any curvature
            return torch.zeros_like(vector)
        (found,) = torch.autograd.grad(slope, at, vector, retain_graph=True, materialize_grads=True)
        return found

    return product


def eigenvalues(
    loss: Loss, weights: Tensor, count: int = 1, *, seed: int, tolerance: float = 1e-3, limit: int = 200
) -> Spectrum:
    """The largest eigenvalues of the Hessian, by block Lanczos with full reorthogonalisation (Golub, Underwood 1977).

    A block has `count` vectors, so that an eigenvalue that occurs several times is found as often. It stops when all
    residuals are at most `tolerance` times the largest |eigenvalue| seen, or before there would be more than `limit`
    products; `converged` says which. A residual bounds the distance to *an* eigenvalue: at a loose tolerance a larger
    one may be missed. Holds up to `limit` vectors. Raises UserError for a count, tolerance or limit that cannot be.
    """
    size = len(weights)
    require(1 <= count <= size, f"the count of eigenvalues must lie between 1 and {size}, not {count}")
    require(tolerance > 0, f"a tolerance must be above 0, not {tolerance}")
    require(limit >= count, f"{count} eigenvalues need a limit of at least {count} products, not {limit}")
    product = hessian_product(loss, weights)
    basis = weights.new_zeros(min(limit, size), size)
    small = torch.zeros(len(basis), len(basis), dtype=torch.float64)  # the Hessian in that basis
    block, known = _orthonormal(_normal(weights, count, seed), basis[:0]), 0
    while True:
        start, known = known, known + len(block)
        basis[start:known] = block
        applied = torch.stack([product(vector) for vector in block])
        cross = applied @ basis[:known].T
        small[start:known, :known] = cross.to(small)
        small[:known, start:known] = cross.T.to(small)
        rest = applied - cross @ basis[:known]
        values, parts = torch.linalg.eigh(small[:known, :known])
        values, parts = values.flip(0), parts.flip(1)[:, :count].to(basis)
        # All of H·basis but the last block's lies in the basis, so that only `rest` is left over.
        residuals = torch.linalg.vector_norm(parts[start:].T @ rest, dim=1)
        converged = bool((residuals <= tolerance * values.abs().max()).all())
        block = _orthonormal(rest, basis[:known])[: size - known]
        if converged or not len(block) or known + len(block) > limit:
            return Spectrum(values[:count].to(basis), parts.T @ basis[:known], residuals, converged, known)


def trace(loss: Loss, weights: Tensor, *, seed: int, draws: int = 32) -> Estimate:
    """The trace of the Hessian (Hutchinson 1990): the mean of v·Hv over random signs v.

    Its variance is twice the sum of the squares off the diagonal. Raises UserError for fewer than two draws.
    """
    product = hessian_product(loss, weights)
    signs = torch.where(_normal(weights, draws, seed) < 0, -1.0, 1.0).to(weights)
    return _estimate([float(v @ product(v)) for v in signs])


def directions(weights: Tensor, count: int, *, seed: int, rows: Sequence[Segment] | None = None) -> Tensor:
    """Random gaussian directions, all as long as the weights. (direction, weight)

    rows: give each of these rows the length of its row of weights (filter normalisation, Li et al. 2018), and leave
    alone what is in no row. Without them a direction is as long as the weights as a whole. Raises UserError for rows
    that lie outside the vector.
    """
    drawn = _normal(weights, count, seed)
    if rows is None:
        rows = [Segment(0, 1, len(weights))]
    found = torch.zeros_like(drawn)
    for start, height, width in rows:
        end = start + height * width
        require(0 <= start <= end <= len(weights), f"rows must lie within 0 to {len(weights)}, not {start} to {end}")
        each = drawn[:, start:end].view(count, height, width)
        own = torch.linalg.vector_norm(weights.detach()[start:end].view(height, width), dim=1, keepdim=True)
        found[:, start:end] = (each * (own / torch.linalg.vector_norm(each, dim=2, keepdim=True))).flatten(1)
    return found


@torch.no_grad()
def perturbed(
    loss: Loss,
    weights: Tensor,
    radii: Sequence[float],
    *,
    seed: int,
    draws: int = 16,
    rows: Sequence[Segment] | None = None,
) -> Tensor:
    """The loss at weights + radius · direction, the same `directions` at every radius. (radius, draw) float64

    So a radius is a share of the length of the weights: raw (without rows) of all of them, else of each row.
    With rows it stays the same when a ReLU layer is scaled by c > 0 and the next one's weights by 1/c; raw does not.
    """
    ways = directions(weights, draws, seed=seed, rows=rows)
    found = [[float(loss(weights + radius * way)) for way in ways] for radius in radii]
    return torch.tensor(found, dtype=torch.float64)


def tolerance(radii: Sequence[float], right: Sequence[float], kept: float) -> float:
    """The radius at which the share of right answers falls below `kept`, by straight lines between the readings.

    right: the share at each radius. The last radius where it never falls below, 0 where it begins there.
    """
    for (r, before), (s, after) in pairwise(zip(radii, right, strict=True)):
        if before >= kept > after:
            return r + (s - r) * (before - kept) / (before - after)
    return radii[-1] if right[0] >= kept else 0.0


@torch.no_grad()
def adaptive_mean(loss: Loss, weights: Tensor, radius: float, *, seed: int, draws: int = 16) -> Estimate:
    """Mean rise of the loss at w + |w|·u entrywise, u uniform on the sphere of this radius: no more than the worst.

    The same for any scaling of units that leaves the function as it is (Kwon et al. 2021). Raises UserError for fewer
    than two draws.
    """
    ways = _normal(weights, draws, seed)
    ways *= radius / torch.linalg.vector_norm(ways, dim=1, keepdim=True)
    here, reach = float(loss(weights)), weights.abs()
    return _estimate([float(loss(weights + reach * way)) - here for way in ways])


def adaptive_worst(loss: Loss, weights: Tensor, radius: float, *, seed: int, steps: int = 20) -> float:
    """Largest rise of the loss at w + |w|·u entrywise over ‖u‖ ≤ radius (adaptive sharpness, Kwon et al. 2021).

    The best point of an ascent from u = 0, so a lower bound: each step goes to the end of the ball in the direction of
    the slope by u, which rises all along where the loss is convex. The first is the point of the rule `asam` with
    eta = 0. Where there is no slope it goes a random way. Raises UserError for fewer than one step.
    """
    require(steps > 0, f"an ascent takes at least one step, not {steps}")
    weights = weights.detach()
    reach, by, best = weights.abs(), torch.zeros_like(weights), 0.0
    with torch.no_grad():
        here = float(loss(weights))
    for _ in range(steps):
        at = (weights + reach * by).requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(loss(at), at)
        way = reach * slope
        if not way.any():
            way = _normal(weights, 1, seed)[0]
        by = way * (radius / torch.linalg.vector_norm(way))
        with torch.no_grad():
            best = max(best, float(loss(weights + reach * by)) - here)
    return best


def _twice(slope: Tensor) -> bool:
    """Has its graph none of the nodes that torch leaves where a way back is marked `once_differentiable`?

    It means them to raise an error, but grad() never comes to them and takes what lies behind for a constant.
    """
    seen, ahead = set(), [slope.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            if node.name() == "torch::autograd::Error":
                return False
            seen.add(node)
            ahead += [before for before, _ in node.next_functions]
    return True


def _normal(like: Tensor, count: int, seed: int) -> Tensor:
    """Standard normal vectors, the same for every precision and device. (vector, weight)"""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, len(like), generator=generator, dtype=torch.float64).to(like)


def _orthonormal(rows: Tensor, basis: Tensor) -> Tensor:
    """Rows made orthogonal to the basis and to each other, of length 1; what is nothing then is left out."""
    found = rows[:0]
    for row in rows:
        left = row
        for _ in range(2):  # the second time takes away the rounding errors of the first
            left = left - (basis @ left) @ basis
            left = left - (found @ left) @ found
        size = torch.linalg.vector_norm(left)
        if size > 100 * torch.finfo(rows.dtype).eps * torch.linalg.vector_norm(row):
            found = torch.cat([found, left[None] / size])
    return found


def _estimate(values: Sequence[float]) -> Estimate:
    require(len(values) > 1, f"an estimate with its error needs at least 2 draws, not {len(values)}")
    each = torch.tensor(values, dtype=torch.float64)
    return Estimate(float(each.mean()), float(each.std() / len(each) ** 0.5), len(each))
