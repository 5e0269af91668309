"""The first rows of Ackermann's function, modulo a prime."""

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from crevasse.spec import Sizes, parse_sizes, require
from crevasse.tasks.base import BLANK, Consecutive, Facts, Input, Ints, Recursion, check_sizes, require_prime

#: Row by row, m = 0 … 3: A(m, 0), and how A(m, n) follows from A(m, n − 1): times the second, plus the third.
_ROWS = np.array([[1, 1, 1], [2, 1, 1], [3, 1, 2], [5, 2, 3]])


@functools.cache
def _order_of_two(p: int) -> int:
    """The smallest t > 0 with 2^t = 1 mod p, p an odd prime: the period of row 3."""
    return next(t for t in range(1, p) if pow(2, t, p) == 1)


@dataclass(frozen=True)
class Ackermann(Recursion):
    """A(m, n) mod p for m ≤ 3: A(0, n) = n + 1, A(m, 0) = A(m−1, 1), A(m, n) = A(m−1, A(m, n−1)).

    The trace is A(m, 0), A(m, 1), …, A(m, n), all mod p. Reducing every value is exact up to m = 3: what is applied
    to a reduced value is one of the rows 0 to 2, which are n + 1, n + 2 and 2n + 3. (Row 3, a power of two, is not
    a function of n mod p: row 4 has no such trace.)
    """

    name: ClassVar[str] = "ackermann"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="per row: n + 1, n + 2, 2n + 3, 2^(n+3) − 3",
        depth="each row m ≤ 3 TC0 (powers: Hesse, Allender, Barrington 2002); over all m not primitive recursive",
        control="affine (the map stands in the input)",
    )
    symmetries: ClassVar[str | None] = "n and n plus the period of its row: p, for m = 3 the order of 2 mod p"
    operator: ClassVar[str] = "@"

    m: Sizes = parse_sizes("0-3")  # rows
    n: Sizes = parse_sizes("0-7+11-14")  # training n (where the axis is n)
    p: Sizes = parse_sizes("17+19+23+29+31+37+41+43")  # prime moduli
    gap: Sizes = parse_sizes("8-10")  # held-out sizes between trained ones
    beyond: Sizes = parse_sizes("15-16")  # held-out sizes above them
    axis: Literal["n", "m"] = "n"  # what a size is: n, or m (then gap and beyond are unseen rows)

    def __post_init__(self) -> None:
        require(bool(self.m) and bool(self.p) and bool(self.n), "ackermann needs at least one m, one n and one p")
        for p in self.p:
            require_prime(p, self.name)
            require(p > 2, "p of ackermann must be odd, not 2")
        require(max(self.m) <= 3, f"m of ackermann must be 0 to 3, not {max(self.m)}")
        require(max(self.n) <= 1000, f"n of ackermann must be 0 to 1000, not {max(self.n)}")
        check_sizes(self.name, self.train_sizes, self.gap, self.beyond, 0, 200 if self.axis == "n" else 3)

    @property
    def train_sizes(self) -> Sizes:
        return self.n if self.axis == "n" else self.m

    @property
    def _size_column(self) -> int:
        return 1 if self.axis == "n" else 0

    @property
    def _columns(self) -> tuple[tuple[int, ...], ...]:
        """The m and the n of all problems, trained and held out."""
        return (tuple(self.m), self.sizes) if self.axis == "n" else (self.sizes, tuple(self.n))

    @property
    def inputs(self) -> tuple[Input, ...]:
        m, n = self._columns
        return (
            Input("m", tuple(sorted(m))),
            Input("n", range(1001) if self.axis == "n" else n),
            Input("p", tuple(self.p)),
        )

    def canonical(self, x: Ints) -> Ints:
        m, n, p = x[:, :1], x[:, 1:2], x[:, 2:]
        order = np.vectorize(_order_of_two, otypes=[np.int64])(p)
        return np.concatenate([m, n % np.where(m == 3, order, p), p], axis=1)

    @property
    def answer_count(self) -> int | None:
        return max(self.p)

    @property
    def symbols(self) -> int:
        return max(max(self.p), max(self._columns[1]), 3) + 1

    def start(self, x: Ints) -> Ints:
        return np.asarray(_ROWS[x[:, :1].astype(np.int64), 0] % x[:, 2:])

    def operands(self, x: Ints) -> Ints:
        index = np.arange(int(x[:, 1].max(initial=0)))
        return np.where(index < x[:, 1:2], x[:, :1], BLANK)[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        row = _ROWS[operand.astype(np.int64)]
        return np.asarray((row[..., 1] * state + row[..., 2]) % x[:, 2:])

    def consecutive(self, x: Ints) -> Consecutive | None:
        earlier = x - [[0, 1, 0]]
        keep = np.isin(earlier[:, 1], self._columns[1])
        return self._telling(earlier[keep], x[keep])
