"""Parity and the five-cycle: the smallest automata whose answer is a count."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from crevasse.spec import Sizes, parse_sizes
from crevasse.tasks.base import Facts, Input, Ints, Recursion, check_sizes


class _Counter(Recursion):
    """A sequence of symbols that are added up modulo a small number."""

    operator = "+"
    symmetries = "order of the operands"
    splits = "XR"
    modulus: ClassVar[int]
    T: Sizes
    beyond: Sizes

    @property
    def train_sizes(self) -> Sizes:
        return self.T

    def canonical(self, x: Ints) -> Ints:
        return np.sort(x, axis=1)

    @property
    def answer_count(self) -> int | None:
        return self.modulus

    @property
    def symbols(self) -> int:
        return self.modulus

    def start(self, x: Ints) -> Ints:
        return x[:, :1]

    def operands(self, x: Ints) -> Ints:
        return x[:, 1:, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        return (state + operand) % self.modulus

    def state_space(self) -> Ints:
        return np.arange(self.modulus)[:, None]


@dataclass(frozen=True)
class Parity(_Counter):
    """x1 ⊕ x2 ⊕ … ⊕ xT of bits."""

    name: ClassVar[str] = "parity"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="the count of ones mod 2",
        depth="TC0, not AC0 (Furst, Saxe, Sipser 1984)",
        control="cycle",
    )
    modulus: ClassVar[int] = 2

    T: Sizes = parse_sizes("1-20")  # training lengths
    beyond: Sizes = parse_sizes("21-30")  # held-out lengths above them

    def __post_init__(self) -> None:
        check_sizes(self.name, self.T, Sizes(()), self.beyond, 1, 1000)

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("x", (0, 1), sequence=True),)


@dataclass(frozen=True)
class Cycle(_Counter):
    """Steps of +1 or −1 on a cycle of five places; −1 is written 4."""

    name: ClassVar[str] = "cycle"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="the difference of two counts mod 5",
        depth="TC0 (counting)",
        control="parity",
    )
    modulus: ClassVar[int] = 5

    T: Sizes = parse_sizes("1-20")  # training lengths
    beyond: Sizes = parse_sizes("21-30")  # held-out lengths above them

    def __post_init__(self) -> None:
        check_sizes(self.name, self.T, Sizes(()), self.beyond, 1, 1000)

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("x", (1, 4), sequence=True, signed=5),)
