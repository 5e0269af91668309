"""Addition and multiplication of decimal numbers, with the school's own traces."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from crevasse.spec import Sizes, parse_sizes
from crevasse.tasks.base import (
    BLANK,
    Facts,
    Input,
    Ints,
    Solution,
    Task,
    check_sizes,
)


class _School(Task):
    """Two numbers a and b; the size of a problem is the number of digits of the longer one."""

    splits = "XR"
    symmetries = "order of the operands"
    largest: ClassVar[int]
    digits: Sizes
    beyond: Sizes

    @property
    def kind(self) -> Literal["residue", "number", "text"]:
        return "number"

    @property
    def train_sizes(self) -> Sizes:
        return self.digits

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("a", range(10**self.largest)), Input("b", range(10**self.largest)))

    def size(self, x: Ints) -> Ints:
        return np.asarray(np.searchsorted(10 ** np.arange(1, self.largest + 1), x.max(1), side="right") + 1)

    def canonical(self, x: Ints) -> Ints:
        return np.sort(x, axis=1)

    def count(self, sizes: Sizes) -> int:
        return sum(10 ** (2 * s) - (10 ** (2 * s - 2) if s > 1 else 0) for s in sizes)

    def every(self, sizes: Sizes) -> Ints:
        grid = np.indices((10 ** max(sizes),) * 2).reshape(2, -1).T
        return grid[np.isin(self.size(grid), sizes)]

    def sample(self, rng: np.random.Generator, count: int, sizes: Sizes) -> Ints:
        drawn = 10 ** rng.choice(np.array(sizes, dtype=np.int64), count)
        x = rng.integers(0, drawn[:, None], (count, 2))
        return x[np.isin(self.size(x), sizes)]

    @property
    def answer_count(self) -> int | None:
        return None

    def _digits(self, x: Ints) -> Ints:
        """(problem,) -> the decimal digits, lowest first. (problem, digit)"""
        return x[:, None] // 10 ** np.arange(self.largest) % 10


@dataclass(frozen=True)
class Addition(_School):
    """a + b of decimal numbers; the trace is the carries, lowest digit first."""

    name: ClassVar[str] = "addition"
    facts: ClassVar[Facts] = Facts(
        recursive=True, closed_form="its own definition", depth="AC0 (carry look-ahead)", control="none"
    )
    operator: ClassVar[str] = "+"
    largest: ClassVar[int] = 18

    digits: Sizes = parse_sizes("1-3")  # training sizes: digits of the longer number
    beyond: Sizes = parse_sizes("4")  # held-out sizes above them

    def __post_init__(self) -> None:
        check_sizes(self.name, self.digits, Sizes(()), self.beyond, 1, self.largest)

    def solve(self, x: Ints, rounded: bool = False) -> Solution:
        a, b, size = self._digits(x[:, 0]), self._digits(x[:, 1]), self.size(x)
        carry = np.zeros(len(x), np.int64)
        states = [carry]
        for t in range(int(size.max(initial=0))):
            carry = (a[:, t] + b[:, t] + carry) // 10
            states.append(np.where(t < size, carry, BLANK))
        return Solution(x.sum(1)[:, None], np.stack(states, axis=1)[:, :, None], None)


@dataclass(frozen=True)
class Multiplication(_School):
    """a · b of decimal numbers; the trace is the partial products a · (digit of b) · 10^i."""

    name: ClassVar[str] = "multiplication"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="its own definition",
        depth="TC0 (iterated addition: Chandra, Stockmeyer, Vishkin 1984)",
        control="none",
    )
    largest: ClassVar[int] = 9

    digits: Sizes = parse_sizes("1-2")  # training sizes: digits of the longer number
    beyond: Sizes = parse_sizes("3")  # held-out sizes above them

    def __post_init__(self) -> None:
        check_sizes(self.name, self.digits, Sizes(()), self.beyond, 1, self.largest)

    def solve(self, x: Ints, rounded: bool = False) -> Solution:
        b, size = self._digits(x[:, 1]), self.size(x)
        partial = x[:, :1] * b * 10 ** np.arange(self.largest)
        partial = np.where(np.arange(self.largest) < size[:, None], partial, BLANK)
        states = np.concatenate([np.zeros((len(x), 1), np.int64), partial[:, : int(size.max(initial=1))]], 1)
        return Solution((x[:, 0] * x[:, 1])[:, None], states[:, :, None], None)
