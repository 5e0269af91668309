"""Fibonacci numbers, plain and seeded modulo m."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from crevasse.spec import Sizes, parse_sizes, require
from crevasse.tasks.base import (
    BLANK,
    Bools,
    Consecutive,
    Facts,
    Input,
    Ints,
    Recursion,
    check_sizes,
)


@dataclass(frozen=True)
class Fibonacci(Recursion):
    """F_n in digits (F_1 = F_2 = 1); with m: from seeds u, v, n steps of (u, v) → (v, u + v) mod m."""

    name: ClassVar[str] = "fibonacci"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="Binet's formula; a matrix power",
        depth="TC0 (powers of one matrix: Mereghetti, Palano 2000)",
        control="affine",
    )
    operator: ClassVar[str] = "+"
    sentence: ClassVar[str] = "Each Fibonacci number is the sum of the two before it; F(1)=F(2)=1."
    call_widths: ClassVar[tuple[int, int] | None] = (2, 0)

    m: int = 0  # modulus of the seeded sequence, with inputs u, v, n; 0 is plain F_n, with n the only input
    n: Sizes = parse_sizes("1-9+15-19")  # training n
    gap: Sizes = parse_sizes("10-14")  # held-out n between trained ones
    beyond: Sizes = parse_sizes("20-24")  # held-out n above them

    def __post_init__(self) -> None:
        require(self.m == 0 or 2 <= self.m <= 10_000, f"m of fibonacci must be 0 or 2 to 10000, not {self.m}")
        check_sizes(self.name, self.n, self.gap, self.beyond, 1, 2000)

    @property
    def kind(self) -> Literal["residue", "number", "text"]:
        return "residue" if self.m else "number"

    @property
    def splits(self) -> str:  # type: ignore[override]
        return "GXR" if self.m else "GX"

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    @property
    def inputs(self) -> tuple[Input, ...]:
        n = Input("n", range(1, 10_001))
        if not self.m:
            return (n,)
        return (Input("u", range(self.m), default=0), Input("v", range(self.m), default=1), n)

    @property
    def answer_count(self) -> int | None:
        return self.m or None

    @property
    def symbols(self) -> int:
        return max(self.m, max(self.sizes) + 1)

    def start(self, x: Ints) -> Ints:
        if self.m:
            return x[:, :2]
        return np.array([[0, 1]] * len(x), dtype=object).reshape(-1, 2)

    def operands(self, x: Ints) -> Ints:
        n = x[:, -1:]
        index = np.arange(int(n.max(initial=0)))
        return np.where(index < n, 1, BLANK)[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        total = state[:, :1] + state[:, 1:]
        return np.concatenate([state[:, 1:], total % self.m if self.m else total], axis=1)

    def read(self, state: Ints) -> Ints:
        return state[:, :1]

    def phrase(self, x: Ints, spell: Callable[[int], str] = str) -> str:
        return super().phrase(x, spell) if self.m else f"F({spell(x[0])})"

    def consecutive(self, x: Ints) -> Consecutive | None:
        x = x[np.isin(x[:, -1] - 1, self.sizes) & np.isin(x[:, -1] - 2, self.sizes)]
        one = np.array([0] * (x.shape[1] - 1) + [1])
        return self._telling(x - 2 * one, x - one, x)

    def obeys(self, links: Consecutive, outputs: Sequence[Ints]) -> Bools:
        total = outputs[0] + outputs[1]
        obeyed = (total % self.m if self.m else total) == outputs[2]
        told = np.any([o != 0 for o in outputs], axis=0)  # 0, 0, 0 holds trivially and proves nothing
        return np.asarray((obeyed & told).all(1))
