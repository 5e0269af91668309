"""The loss between trained weights: along lines, curves and planes, as it is and after units have changed places.

Pure functions over one flat vector of weights, as in `sharpness`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from crevasse.probes.sharpness import Loss
from crevasse.spec import require

#: By the name of each parameter its shape, in the order in which they lie in the vector, without a gap.
Shapes = Mapping[str, Sequence[int]]
#: Units that can change places: how many, and where they stand, as (parameter, axis, offset of the first along it).
Units = tuple[int, tuple[tuple[str, int, int], ...]]


@dataclass(frozen=True)
class Profile:
    """Losses along a way between two points."""

    t: Tensor  # (point,) from 0 to 1
    losses: Tensor  # (point,)

    @property
    def barrier(self) -> float:
        """The most by which the loss exceeds the straight line between those of the two ends; at least 0.

        (Frankle et al. 2020; Entezari et al. 2022)
        """
        return float((self.losses - torch.lerp(self.losses[0], self.losses[-1], self.t)).max())


@dataclass(frozen=True)
class Plane:
    """Losses on the plane through three points."""

    origin: Tensor  # (weight,) the first point
    axes: Tensor  # (2, weight) orthonormal
    corners: Tensor  # (3, 2) coordinates of the three
    x: Tensor  # (column,)
    y: Tensor  # (row,)
    losses: Tensor  # (row, column)

    def place(self, weights: Tensor) -> Tensor:
        """Coordinates of the point of the plane that is nearest to each. (…, weight) -> (…, 2)"""
        return (weights - self.origin) @ self.axes.T


def line(loss: Loss, a: Tensor, b: Tensor, points: int = 25) -> Profile:
    """The loss on the straight line from a to b. Raises UserError for fewer than two points."""
    return _along(loss, lambda t: torch.lerp(a, b, t), points)


def bezier(a: Tensor, bend: Tensor, b: Tensor, t: float) -> Tensor:
    """(1 − t)²·a + 2t(1 − t)·bend + t²·b (weight,)"""
    return (1 - t) ** 2 * a + 2 * t * (1 - t) * bend + t**2 * b


def curve(loss: Loss, a: Tensor, bend: Tensor, b: Tensor, points: int = 25) -> Profile:
    """The loss on the quadratic Bezier curve. Raises UserError for fewer than two points."""
    return _along(loss, lambda t: bezier(a, bend, b, t), points)


def train_bend(loss: Loss, a: Tensor, b: Tensor, *, seed: int, steps: int = 200, rate: float = 0.01) -> Tensor:
    """The bend of a Bezier curve from a to b with a low mean loss over t (Garipov et al. 2018). (weight,)

    From the middle between the two by Adam, each step on one t drawn uniformly; `rate` falls linearly to zero.
    Raises UserError for fewer than one step.
    """
    require(steps > 0, f"a bend takes at least one step, not {steps}")
    a, b = a.detach(), b.detach()
    bend = ((a + b) / 2).requires_grad_()
    adam = torch.optim.Adam([bend], lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, steps)
    for t in torch.rand(steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).tolist():
        with torch.enable_grad():
            (bend.grad,) = torch.autograd.grad(loss(bezier(a, bend, b, t)), bend)
        adam.step()
        schedule.step()
    return bend.detach()


@torch.no_grad()
def plane(loss: Loss, a: Tensor, b: Tensor, c: Tensor, points: int = 21, margin: float = 0.25) -> Plane:
    """A square grid of losses on the plane through three points (Garipov et al. 2018).

    The first axis goes from a to b, the second is what is left of c − a (Gram-Schmidt). The grid covers the three and
    `margin` times their extent on each side. With b = a + d, c = a + e it is the picture of Li et al. (2018) around a.
    Raises UserError for points on one line, and for fewer than two points a side.
    """
    require(points > 1, f"a grid needs at least 2 points a side, not {points}")
    first = (b - a) / torch.linalg.vector_norm(b - a)
    second = (c - a) - ((c - a) @ first) * first
    second = second - (second @ first) * first
    size = torch.linalg.vector_norm(second)
    # Rounding errors leave something of three points on a line; of two that are equal, NaN.
    apart = bool(size > 100 * torch.finfo(a.dtype).eps * torch.linalg.vector_norm(c - a))
    require(apart, "three points on one line span no plane; choose three that are not")
    axes = torch.stack([first, second / size])
    corners = (torch.stack([a, b, c]) - a) @ axes.T
    low, high = corners.min(0).values, corners.max(0).values
    ways = torch.linspace(-margin, 1 + margin, points).to(corners)[:, None]
    x, y = (low + ways * (high - low)).unbind(1)
    losses = [[float(loss(a + u * axes[0] + v * axes[1])) for u in x] for v in y]
    return Plane(a, axes, corners, x, y, torch.tensor(losses, dtype=torch.float64))


def permuted(weights: Tensor, shapes: Shapes, units: Iterable[Units], orders: Iterable[Tensor]) -> Tensor:
    """The same network with its units in another order. (weight,)

    orders: of each set of units, which one comes to each place, (unit,)
    """
    moved = weights.detach().clone()
    parts = _parts(moved, shapes)
    for (size, places), order in zip(units, orders, strict=True):
        _move(parts, size, places, order)
    return moved


def align(a: Tensor, b: Tensor, shapes: Shapes, units: Sequence[Units], *, seed: int) -> tuple[Tensor, list[Tensor]]:
    """The network b with its units in the order in which it comes near to a, and that order, as `permuted` takes it.

    Weight matching (Ainsworth et al. 2023, algorithm 1): set by set, in random order, the units are assigned to those
    of a by the inner products of all their weights, the other sets staying as they are, until nothing changes. An order
    is taken only if it brings the two nearer, which where a set stands on both axes of a parameter (a recurrence) an
    assignment alone does not promise. It is a local optimum: another seed may find a nearer one.
    (weight,), (unit,) of each set. Raises UserError for shapes that are not those of the vectors.
    """
    from scipy.optimize import linear_sum_assignment  # takes a third of a second to import

    target, moved = a.detach().double(), b.detach().clone().double()
    to, parts = _parts(target, shapes), _parts(moved, shapes)
    least = 1e-12 * float(torch.linalg.vector_norm(target) * torch.linalg.vector_norm(moved))
    orders = [torch.arange(size, device=b.device) for size, _ in units]
    generator = torch.Generator().manual_seed(seed)
    changed = True
    while changed:
        changed = False
        for i in torch.randperm(len(units), generator=generator).tolist():
            size, places = units[i]
            near = sum(_rows(to, size, place) @ _rows(parts, size, place).T for place in places)
            assert isinstance(near, Tensor)
            order = torch.from_numpy(linear_sum_assignment(near.cpu().numpy(), maximize=True)[1]).to(b.device)
            trial = {name: parts[name].clone() for name, _, _ in places}
            _move(trial, size, places, order)
            gain = sum(float((to[name] * (part - parts[name])).sum()) for name, part in trial.items())
            if gain > least:
                for name, part in trial.items():
                    parts[name].copy_(part)
                orders[i], changed = orders[i][order], True
    return moved.to(b.dtype), orders


@torch.no_grad()
def _along(loss: Loss, way: Callable[[float], Tensor], points: int) -> Profile:
    require(points > 1, f"a profile needs at least 2 points, not {points}")
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    return Profile(t, torch.tensor([float(loss(way(float(s)))) for s in t], dtype=torch.float64))


def _parts(vector: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """Each parameter as a view, by name."""
    sizes = [torch.Size(shape).numel() for shape in shapes.values()]
    require(sum(sizes) == len(vector), f"shapes of {sum(sizes)} numbers do not fit a vector of {len(vector)}")
    return {n: v.view(*s) for (n, s), v in zip(shapes.items(), torch.split(vector, sizes), strict=True)}


def _rows(parts: Mapping[str, Tensor], size: int, place: tuple[str, int, int]) -> Tensor:
    """What stands there, unit by unit. (unit, number)"""
    name, axis, offset = place
    return parts[name].narrow(axis, offset, size).movedim(axis, 0).reshape(size, -1)


def _move(parts: Mapping[str, Tensor], size: int, places: Iterable[tuple[str, int, int]], order: Tensor) -> None:
    """Change places, in the parameters themselves. order: which unit comes to each place (unit,)"""
    for name, axis, offset in places:
        there = parts[name].narrow(axis, offset, size)
        there.copy_(there.index_select(axis, order))
