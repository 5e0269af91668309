"""The Collatz map, a number of times."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from crevasse.spec import Sizes, parse_sizes, require
from crevasse.tasks.base import BLANK, Facts, Input, Ints, Recursion, check_sizes


@dataclass(frozen=True)
class Collatz(Recursion):
    """x → x/2 where x is even, 3x + 1 where it is odd, n times, in decimal digits."""

    name: ClassVar[str] = "collatz"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="none known",
        depth="P; nothing shallower known (maps of this kind simulate any machine: Conway 1972)",
        control="affine (one map for all numbers)",
    )
    splits: ClassVar[str] = "XR"
    operator: ClassVar[str] = "@"
    sentence: ClassVar[str] = "Halve an even number, and take three times an odd one plus one; do this n times."
    call_widths: ClassVar[tuple[int, int] | None] = (1, 0)

    largest: int = 999  # start values are 1 to this
    n: Sizes = parse_sizes("1-6")  # training numbers of steps
    beyond: Sizes = parse_sizes("7-9")  # held-out numbers of steps above them

    def __post_init__(self) -> None:
        # No start up to a million ever rises above 56,991,483,520: every state fits in int64.
        require(1 <= self.largest <= 10**6, f"largest of collatz must be 1 to 1000000, not {self.largest}")
        check_sizes(self.name, self.n, Sizes(()), self.beyond, 1, 500)

    @property
    def kind(self) -> Literal["residue", "number", "text"]:
        return "number"

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("x", range(1, self.largest + 1)), Input("n", range(1, 1001)))

    @property
    def answer_count(self) -> int | None:
        return None

    def start(self, x: Ints) -> Ints:
        return x[:, :1]

    def operands(self, x: Ints) -> Ints:
        index = np.arange(int(x[:, 1].max(initial=0)))
        return np.where(index < x[:, 1:], 1, BLANK)[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        return np.where(state % 2 == 0, state // 2, 3 * state + 1)
