"""The Josephus problem: who is left when every k-th leaves the circle?"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from crevasse.spec import Sizes, parse_sizes, require
from crevasse.tasks.base import BLANK, Facts, Input, Ints, Recursion, check_sizes


@dataclass(frozen=True)
class Josephus(Recursion):
    """The survivor among n in a circle that every k-th leaves, counted from 0: J → (J + k) mod i for i = 2 … n."""

    name: ClassVar[str] = "josephus"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="k = 2: twice what n exceeds a power of 2 by (Graham, Knuth, Patashnik 1994); k > 2: none simple",
        depth="unclear: a sum whose modulus changes at every step; no shallow circuit known to us",
        control="cycle (the modulus stays)",
    )
    symmetries: ClassVar[str | None] = "k and k plus a multiple of every number from 1 to n"
    operator: ClassVar[str] = "@"

    k: Sizes = parse_sizes("1-24")  # which one leaves
    n: Sizes = parse_sizes("2-9+13-16")  # training sizes of the circle
    gap: Sizes = parse_sizes("10-12")  # held-out sizes between trained ones
    beyond: Sizes = parse_sizes("17-20")  # held-out sizes above them

    def __post_init__(self) -> None:
        require(bool(self.k), "josephus needs at least one k")
        require(min(self.k) >= 1 and max(self.k) <= 10_000, "k of josephus must lie between 1 and 10000")
        check_sizes(self.name, self.n, self.gap, self.beyond, 1, 200)

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("n", range(1, 1001)), Input("k", tuple(self.k)))

    def canonical(self, x: Ints) -> Ints:
        # The least common multiple grows fast; from max(k) on it changes no k.
        period = [1]
        for i in range(1, int(x[:, 0].max(initial=1)) + 1):
            period.append(int(np.lcm(period[-1], i)) if period[-1] <= max(self.k) else period[-1])
        return np.column_stack([x[:, 0], x[:, 1] % np.array(period)[x[:, 0]]])

    @property
    def answer_count(self) -> int | None:
        return max(self.sizes)

    @property
    def symbols(self) -> int:
        return max(max(self.sizes), max(self.k)) + 1

    def start(self, x: Ints) -> Ints:
        return np.zeros_like(x[:, :1])

    def operands(self, x: Ints) -> Ints:
        circle = np.arange(2, int(x[:, 0].max(initial=1)) + 1)
        return np.where(circle <= x[:, :1], circle, BLANK)[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        return (state + x[:, 1:]) % operand
