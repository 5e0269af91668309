"""x1·x2·…·xT mod p: the iterated product, and the crevasse cell's task."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from crevasse.spec import Sizes, parse_sizes
from crevasse.tasks.base import (
    BLANK,
    Facts,
    Input,
    Ints,
    Recursion,
    check_sizes,
    require_prime,
)


@dataclass(frozen=True)
class IteratedProduct(Recursion):
    """x1·x2·…·xT mod p with factors 1 … p − 1, p prime."""

    name: ClassVar[str] = "iterated-product"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="a sum of discrete logarithms",
        depth="TC0 (Hesse, Allender, Barrington 2002)",
        control="words (S5)",
    )
    symmetries: ClassVar[str | None] = "order of the factors"
    sentence: ClassVar[str] = "Multiply the factors one by one, and keep the remainder after division by the modulus."

    p: int = 13  # prime modulus
    T: Sizes = parse_sizes("6")  # training lengths; 1-6 mixes them
    gap: Sizes = parse_sizes("")  # held-out lengths between trained ones
    beyond: Sizes = parse_sizes("7-8")  # held-out lengths above them

    def __post_init__(self) -> None:
        require_prime(self.p, self.name)
        check_sizes(self.name, self.T, self.gap, self.beyond, 1, 200)

    @property
    def train_sizes(self) -> Sizes:
        return self.T

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("x", range(1, max(self.p, 2)), sequence=True),)

    def canonical(self, x: Ints) -> Ints:
        return np.sort(x, axis=1)

    @property
    def answer_count(self) -> int | None:
        return self.p - 1

    @property
    def symbols(self) -> int:
        return self.p

    def start(self, x: Ints) -> Ints:
        return x[:, :1]

    def operands(self, x: Ints) -> Ints:
        return x[:, 1:, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        return state * operand % self.p

    def phrase(self, x: Ints, spell: Callable[[int], str] = str) -> str:
        return f"{'*'.join(spell(v) for v in x if v != BLANK)} mod {spell(self.p)}"

    def state_space(self) -> Ints:
        return np.arange(1, self.p)[:, None]
