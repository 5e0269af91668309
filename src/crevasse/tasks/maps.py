"""Maps applied again and again: affine and quadratic."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from crevasse.spec import Sizes, parse_sizes, require
from crevasse.tasks.base import (
    BLANK,
    Bools,
    Facts,
    Input,
    Ints,
    Recursion,
    check_sizes,
    require_prime,
)


@dataclass(frozen=True)
class Affine(Recursion):
    """x → ax + b mod p with a ≠ 0, n times: one map (inputs x, a, b, n) or a fresh one at each step."""

    name: ClassVar[str] = "affine"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="one map: aⁿx + b(aⁿ − 1)/(a − 1), for a = 1 x + nb; fresh maps: none",
        depth="TC0 (the maps mod p form a solvable monoid: Barrington, Thérien 1988)",
        control="quadratic",
    )
    operator: ClassVar[str] = "@"
    call_widths: ClassVar[tuple[int, int] | None] = (1, 2)
    per_step: ClassVar[int] = 2

    p: int = 11  # prime modulus
    maps: Literal["fixed", "fresh"] = "fixed"  # one map for all steps, or a1, b1, a2, b2, … in the input
    n: Sizes = parse_sizes("1-3+5-6")  # training numbers of steps
    gap: Sizes = parse_sizes("4")  # held-out numbers of steps between trained ones
    beyond: Sizes = parse_sizes("7-8")  # held-out numbers of steps above them

    def __post_init__(self) -> None:
        require_prime(self.p, self.name)
        check_sizes(self.name, self.n, self.gap, self.beyond, 1, 200)

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    @property
    def inputs(self) -> tuple[Input, ...]:
        every = range(self.p)
        if self.maps == "fresh":
            return (Input("x", every), Input("maps", every, sequence=True, signed=self.p))
        return (
            Input("x", every),
            Input("a", range(1, max(self.p, 2)), signed=self.p),
            Input("b", every, signed=self.p),
            Input("n", range(1, 1001)),
        )

    def valid(self, x: Ints) -> Bools:
        if self.maps == "fixed":
            return np.ones(len(x), bool)
        given = (x[:, 1:] != BLANK).sum(1)
        return np.asarray((x[:, 1::2] != 0).all(1) & (given % 2 == 0) & (given > 0))

    @property
    def answer_count(self) -> int | None:
        return self.p

    @property
    def symbols(self) -> int:
        if self.maps == "fresh":
            return self.p
        return max(self.p, max(self.sizes) + 1)

    def start(self, x: Ints) -> Ints:
        return x[:, :1]

    def operands(self, x: Ints) -> Ints:
        if self.maps == "fresh":
            return x[:, 1:].reshape(len(x), x.shape[1] // 2, 2)
        index = np.arange(int(x[:, 3].max(initial=0)))
        live = (index < x[:, 3:])[:, :, None]
        return np.where(live, x[:, None, 1:3], BLANK)

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        return (operand[:, :1] * state + operand[:, 1:]) % self.p

    def state_space(self) -> Ints:
        return np.arange(self.p)[:, None]


@dataclass(frozen=True)
class Quadratic(Recursion):
    """x → x² + c mod p, n times; p and c part of the input."""

    name: ClassVar[str] = "quadratic"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="for c = 0 and c = −2 only",
        depth="serial (conjectured, by analogy with repeated squaring modulo a composite: Rivest, Shamir, Wagner 1996)",
        control="quadratic with c = 0 against c = 1",
    )
    symmetries: ClassVar[str | None] = "x and −x"
    operator: ClassVar[str] = "@"

    p: Sizes = parse_sizes("11+13+17+19+23")  # prime moduli
    c: Sizes = parse_sizes("0-22")  # constants; those not below p are left out
    n: Sizes = parse_sizes("1-3+5-6")  # training numbers of steps
    gap: Sizes = parse_sizes("4")  # held-out numbers of steps between trained ones
    beyond: Sizes = parse_sizes("7-8")  # held-out numbers of steps above them

    def __post_init__(self) -> None:
        require(bool(self.p) and bool(self.c), "quadratic needs at least one p and one c")
        for p in self.p:
            require_prime(p, self.name)
        require(min(self.c) < max(self.p), f"c of quadratic must be below p: c={min(self.c)}")
        check_sizes(self.name, self.n, self.gap, self.beyond, 1, 200)

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (
            Input("x", range(max(self.p))),
            Input("c", tuple(self.c)),
            Input("n", range(1, 1001)),
            Input("p", tuple(self.p)),
        )

    def valid(self, x: Ints) -> Bools:
        return np.asarray((x[:, 0] < x[:, 3]) & (x[:, 1] < x[:, 3]))

    def canonical(self, x: Ints) -> Ints:
        out = x.copy()
        out[:, 0] = np.minimum(x[:, 0], (x[:, 3] - x[:, 0]) % x[:, 3])
        return out

    @property
    def answer_count(self) -> int | None:
        return max(self.p)

    @property
    def symbols(self) -> int:
        return max(max(self.p), max(self.sizes)) + 1

    def start(self, x: Ints) -> Ints:
        return x[:, :1]

    def operands(self, x: Ints) -> Ints:
        index = np.arange(int(x[:, 2].max(initial=0)))
        return np.where(index < x[:, 2:3], x[:, 1:2], BLANK)[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        return (state * state + operand) % x[:, 3:]
