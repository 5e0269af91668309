"""Copying: the plainest structure that problems can share."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from crevasse.spec import Sizes, require
from crevasse.tasks.base import Facts, Input, Ints, Solution, Task


@dataclass(frozen=True)
class Copy(Task):
    """x1 … xT, written once more."""

    name: ClassVar[str] = "copy"
    facts: ClassVar[Facts] = Facts(
        recursive=False,
        closed_form="each symbol is its own answer",
        depth="AC0 (each answer depends on one input)",
        control="iterated-product",
    )
    splits: ClassVar[str] = "R"

    p: int = 10  # different symbols
    T: int = 6  # length: one for all problems, as answers have it too

    def __post_init__(self) -> None:
        require(2 <= self.p <= 10_000, f"p of copy must lie between 2 and 10,000, not {self.p}")
        require(1 <= self.T <= 200, f"T of copy must lie between 1 and 200, not {self.T}")

    @property
    def train_sizes(self) -> Sizes:
        return Sizes((self.T,))

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("x", range(self.p), sequence=True),)

    @property
    def answer_count(self) -> int | None:
        return int(self.p**self.T)

    @property
    def symbols(self) -> int:
        return self.p

    def solve(self, x: Ints, rounded: bool = False) -> Solution:
        return Solution(np.array(x), None, None)
