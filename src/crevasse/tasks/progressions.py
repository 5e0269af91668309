"""Products and sums over a progression a, a+d, a+2d, …: the same problems, irreducible and reducible."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from crevasse.spec import Sizes, parse_sizes, require
from crevasse.tasks.base import (
    BLANK,
    Facts,
    Input,
    Ints,
    Recursion,
    check_sizes,
    descending,
    require_prime,
)


class _Progression(Recursion):
    """Inputs a, d and n: the terms a, a+d, …, a+(n−1)d modulo p."""

    p: int

    @property
    def inputs(self) -> tuple[Input, ...]:
        p = self.p
        return (
            Input("a", range(1, p), default=1),
            Input("d", tuple(sorted({1, 2, p - 1, p - 2})), default=1, signed=p),
            Input("n", range(1, 1001)),
        )

    def canonical(self, x: Ints) -> Ints:
        # The terms in order of size: the same read backwards, for n = 1 whatever d, and around the residues. With
        # every sign turned the answer is the same up to sign, so the smaller of the two stands for both.
        terms = np.sort(np.column_stack([x[:, 0], self.operands(x)[:, :, 0]]), axis=1)
        turned = np.sort(np.where(terms == BLANK, BLANK, -terms % self.p), axis=1)
        row, column = np.arange(len(x)), (terms != turned).argmax(1)
        return np.where((turned[row, column] < terms[row, column])[:, None], turned, terms)

    @property
    def answer_count(self) -> int | None:
        return self.p

    @property
    def symbols(self) -> int:
        return max(self.p, max(self.sizes) + 1)

    def start(self, x: Ints) -> Ints:
        return x[:, :1]

    def operands(self, x: Ints) -> Ints:
        a, d, n = x[:, 0:1], x[:, 1:2], x[:, 2:3]
        index = np.arange(1, max(int(x[:, 2].max(initial=1)), 1))
        return np.where(index < n, (a + index * d) % self.p, BLANK)[:, :, None]


@dataclass(frozen=True)
class RisingProduct(_Progression):
    """a(a+d)(a+2d)… with n factors, mod p; d = 1, −1, 2, −2."""

    name: ClassVar[str] = "rising-product"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="none known",
        depth="TC0 (iterated product: Hesse, Allender, Barrington 2002)",
        control="sum",
    )
    symmetries: ClassVar[str | None] = "the same factors in another order, or all with the other sign"

    p: int = 31  # prime modulus
    n: Sizes = parse_sizes("2-4+6-8")  # training numbers of factors
    gap: Sizes = parse_sizes("5")  # held-out numbers of factors between trained ones
    beyond: Sizes = parse_sizes("9-10")  # held-out numbers of factors above them

    def __post_init__(self) -> None:
        require_prime(self.p, self.name)
        require(self.p >= 5, f"p of rising-product must be at least 5, not {self.p}")
        check_sizes(self.name, self.n, self.gap, self.beyond, 1, 200)

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        return state * operand % self.p


@dataclass(frozen=True)
class Sum(_Progression):
    """1 + 2 + … + n in digits; with p the sum of n terms a, a+d, … mod p, the control of `rising-product`."""

    name: ClassVar[str] = "sum"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="n(n+1)/2; with p: n·a + d·n(n−1)/2",
        depth="AC0–TC0 (one product of short numbers)",
        control="rising-product",
    )
    operator: ClassVar[str] = "+"
    sentence: ClassVar[str] = "Add the terms one by one; with mod p, what counts is the remainder after division by p."

    p: int = 0  # prime modulus, with inputs a, d, n; 0 adds plain numbers 1 … n, with n the only input
    n: Sizes = parse_sizes("1-9+15-19")  # training numbers of terms
    gap: Sizes = parse_sizes("10-14")  # held-out numbers of terms between trained ones
    beyond: Sizes = parse_sizes("20-24")  # held-out numbers of terms above them

    def __post_init__(self) -> None:
        if self.p:
            require_prime(self.p, self.name)
            require(self.p >= 5, f"p of sum must be at least 5 (or 0 for plain numbers), not {self.p}")
        check_sizes(self.name, self.n, self.gap, self.beyond, 1, 100_000 if not self.p else 200)

    @property
    def kind(self) -> Literal["residue", "number", "text"]:
        return "residue" if self.p else "number"

    @property
    def splits(self) -> str:  # type: ignore[override]
        return "GXR" if self.p else "GX"

    @property
    def symmetries(self) -> str:  # type: ignore[override]
        return "the same terms in another order, or all with the other sign" if self.p else "none"

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    @property
    def inputs(self) -> tuple[Input, ...]:
        return super().inputs if self.p else (Input("n", range(1, 100_001)),)

    @property
    def answer_count(self) -> int | None:
        return self.p or None

    def canonical(self, x: Ints) -> Ints:
        return super().canonical(x) if self.p else x

    def start(self, x: Ints) -> Ints:
        return x[:, :1]

    def operands(self, x: Ints) -> Ints:
        return super().operands(x) if self.p else descending(x[:, 0])[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        return (state + operand) % self.p if self.p else state + operand

    def phrase(self, x: Ints, spell: Callable[[int], str] = str) -> str:
        return super().phrase(x, spell) if self.p else f"{spell(x[0])}+...+{spell(1)}"

    def _last_operand(self, x: Ints) -> Ints:
        # Plain: written n, n + (n−1), …, but n is what the sum to n adds to the sum to n − 1.
        return super()._last_operand(x) if self.p else x
