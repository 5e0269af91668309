"""A map that is written in the input as a table, applied again and again."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from crevasse.spec import Sizes, parse_sizes, require
from crevasse.tasks.base import BLANK, Bools, Consecutive, Facts, Input, Ints, Recursion, check_sizes


@dataclass(frozen=True)
class Pointer(Recursion):
    """f applied n times to x; f maps 0 … m − 1 to itself and is written in the input as its m values."""

    name: ClassVar[str] = "pointer"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="none",
        depth="log-depth by pointer doubling; with m growing, complete for logarithmic space (Jones 1975)",
        control="affine",
    )
    #: Renaming the points is left out: up to it there are only a few shapes of walks, and nothing to hold out.
    symmetries: ClassVar[str | None] = "values of f that the walk does not use; turns round the same cycle"
    splits: ClassVar[str] = "XR"
    operator: ClassVar[str] = "@"
    call_widths: ClassVar[tuple[int, int] | None] = (1, 0)

    m: int = 10  # number of points
    n: Sizes = parse_sizes("1-4")  # training numbers of steps
    beyond: Sizes = parse_sizes("5-6")  # held-out numbers of steps above them

    def __post_init__(self) -> None:
        require(2 <= self.m <= 200, f"m of pointer must lie between 2 and 200, not {self.m}")
        check_sizes(self.name, self.n, Sizes(()), self.beyond, 1, 200)

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    @property
    def inputs(self) -> tuple[Input, ...]:
        points = range(self.m)
        return (Input("x", points), Input("n", range(1, 1001)), Input("f", points, sequence=True))

    def valid(self, x: Ints) -> Bools:
        return np.full(len(x), x.shape[1] == 2 + self.m)

    def size(self, x: Ints) -> Ints:
        return np.asarray(x[:, 1])  # n: the sequence has one length in all problems

    def canonical(self, x: Ints) -> Ints:
        """Start, end and the values of f that are used; m stands for those that are not."""
        solution = self.solve(x)
        assert solution.states is not None
        left = np.where(solution.states[:, 1:, 0] == BLANK, self.m, solution.states[:, :-1, 0])
        used = np.zeros((len(x), self.m + 1), bool)
        np.put_along_axis(used, left, True, axis=1)
        return np.column_stack([x[:, 0], solution.answers, np.where(used[:, :-1], x[:, 2:], self.m)])

    def count(self, sizes: Sizes) -> int:
        return len(sizes) * int(self.m ** (self.m + 1))

    def every(self, sizes: Sizes) -> Ints:
        points = range(self.m)
        return np.array(list(itertools.product(points, sizes, *[points] * self.m)), np.int64).reshape(-1, 2 + self.m)

    def sample(self, rng: np.random.Generator, count: int, sizes: Sizes) -> Ints:
        x = rng.integers(self.m, size=(count, 2 + self.m))
        x[:, 1] = rng.choice(np.array(sizes, np.int64), count)
        return x

    @property
    def answer_count(self) -> int | None:
        return self.m

    @property
    def symbols(self) -> int:
        return max(self.m, max(self.sizes) + 1)

    def start(self, x: Ints) -> Ints:
        return x[:, :1]

    def operands(self, x: Ints) -> Ints:
        n = x[:, 1:2]
        return np.where(np.arange(int(n.max(initial=0))) < n, 1, BLANK)[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        return np.asarray(np.take_along_axis(x, state.astype(np.int64) + 2, axis=1))

    def consecutive(self, x: Ints) -> Consecutive | None:
        x = x[np.isin(x[:, 1] - 1, self.sizes)]
        earlier = x.copy()
        earlier[:, 1] -= 1
        return Consecutive((earlier, x)) if len(x) else None

    def obeys(self, links: Consecutive, outputs: Sequence[Ints]) -> Bools:
        earlier, later = outputs
        point = earlier < self.m
        moved = self.step(np.where(point, earlier, 0), earlier, links.problems[1])
        return np.asarray((point & (moved == later))[:, 0])
