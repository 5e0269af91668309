"""Linear recurrences of k terms from fresh seeds, modulo m."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from crevasse.errors import UserError
from crevasse.spec import Sizes, parse_sizes, require
from crevasse.tasks.base import BLANK, Bools, Consecutive, Facts, Input, Ints, Recursion, check_sizes


class _Linear(Recursion):
    """a(i) = c1·a(i−1) + … + ck·a(i−k) mod m: inputs a0, …, a(k−1) and n, answer a(n); the state is a window of k."""

    operator = "+"
    symmetries = "all seeds with the other sign; n and n plus the period, where there is one"
    m: int
    n: Sizes
    gap: Sizes
    beyond: Sizes

    def __post_init__(self) -> None:
        require(2 <= self.m <= 10_000, f"m of {self.name} must be 2 to 10000, not {self.m}")
        check_sizes(self.name, self.n, self.gap, self.beyond, 1, 200)

    @property
    def weights(self) -> tuple[int, ...]:
        """c1, …, ck."""
        raise NotImplementedError

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    @property
    def call_widths(self) -> tuple[int, int] | None:  # type: ignore[override]
        return (len(self.weights), 0)

    @property
    def inputs(self) -> tuple[Input, ...]:
        k = len(self.weights)
        seeds = (Input(f"a{i}", range(self.m), default=int(i == k - 1), signed=self.m) for i in range(k))
        return (*seeds, Input("n", range(1, 1001)))

    @functools.cached_property
    def _period(self) -> int:
        """The smallest number of steps, up to the largest n, that leave every window as it was; 0 if none does."""
        window = unit = np.eye(len(self.weights), dtype=np.int64)
        for t in range(1, max(self.sizes) + 1):
            window = self.step(window, unit, unit)
            if (window == unit).all():
                return t
        return 0

    def canonical(self, x: Ints) -> Ints:
        seeds, n = x[:, :-1], x[:, -1:]
        turned = -seeds % self.m
        row, column = np.arange(len(x)), (seeds != turned).argmax(1)
        seeds = np.where((turned[row, column] < seeds[row, column])[:, None], turned, seeds)
        return np.concatenate([seeds, n % self._period if self._period else n], axis=1)

    @property
    def answer_count(self) -> int | None:
        return self.m

    @property
    def symbols(self) -> int:
        return max(self.m, max(self.sizes) + 1)

    def start(self, x: Ints) -> Ints:
        return x[:, :-1]

    def operands(self, x: Ints) -> Ints:
        n = x[:, -1:]
        index = np.arange(int(n.max(initial=0)))
        return np.where(index < n, 1, BLANK)[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        new = state @ np.array(self.weights[::-1])[:, None] % self.m
        return np.concatenate([state[:, 1:], new], axis=1)

    def read(self, state: Ints) -> Ints:
        return state[:, :1]

    def consecutive(self, x: Ints) -> Consecutive | None:
        k = len(self.weights)
        x = x[np.all([np.isin(x[:, -1] - i, self.sizes) for i in range(1, k + 1)], axis=0)]
        one = np.array([0] * k + [1])
        return self._telling(*(x - i * one for i in range(k, -1, -1)))

    def obeys(self, links: Consecutive, outputs: Sequence[Ints]) -> Bools:
        *window, last = (o[:, :1] for o in outputs)
        follows = self.step(np.concatenate(window, axis=1), last, last)[:, -1:]
        told = np.any([o != 0 for o in outputs], axis=0)  # 0 follows from zeros and proves nothing
        return np.asarray(((follows == last) & told).all(1))


@dataclass(frozen=True)
class Recurrence(_Linear):
    """a(n) of a(i) = c1·a(i−1) + … + ck·a(i−k) mod m, from the seeds a0, …, a(k−1)."""

    name: ClassVar[str] = "recurrence"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="a power of a k×k matrix",
        depth="TC0 (power of a matrix of fixed size: Mereghetti, Palano 2000)",
        control="tribonacci (every coefficient 1)",
    )

    coefficients: str = "2+0+3"  # c1+c2+…+ck; their number is the number of seeds
    m: int = 13  # modulus
    n: Sizes = parse_sizes("3-5+7-9")  # training n
    gap: Sizes = parse_sizes("6")  # held-out n between trained ones
    beyond: Sizes = parse_sizes("10-11")  # held-out n above them

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            weights = self.weights
        except ValueError:
            raise UserError(f"coefficients of recurrence are written 2+0+3, not {self.coefficients!r}") from None
        require(len(weights) <= 8, f"recurrence has at most 8 coefficients, not {len(weights)}")
        for c in weights:
            require(0 <= c < self.m, f"coefficients of recurrence must lie between 0 and m − 1 = {self.m - 1}, not {c}")
        require(weights[-1] > 0, "the last coefficient of recurrence must not be 0 (leave it out)")

    @property
    def weights(self) -> tuple[int, ...]:
        return tuple(int(c) for c in self.coefficients.split("+"))


@dataclass(frozen=True)
class Tribonacci(_Linear):
    """a(n) of a(i) = a(i−1) + a(i−2) + a(i−3) mod m, from the seeds a0, a1, a2."""

    name: ClassVar[str] = "tribonacci"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="a power of a 3×3 matrix; for seeds 0, 0, 1 a formula like Binet's (Spickerman 1982)",
        depth="TC0 (power of a matrix of fixed size: Mereghetti, Palano 2000)",
        control="fibonacci with m (a window of two)",
    )

    m: int = 13  # modulus
    n: Sizes = parse_sizes("3-5+7-9")  # training n
    gap: Sizes = parse_sizes("6")  # held-out n between trained ones
    beyond: Sizes = parse_sizes("10-11")  # held-out n above them

    @property
    def weights(self) -> tuple[int, ...]:
        return (1, 1, 1)
