"""n!, in digits and modulo a prime."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, ClassVar, Literal

import numpy as np

from crevasse.spec import Sizes, parse_sizes, require
from crevasse.tasks.base import (
    Bools,
    Consecutive,
    Facts,
    Input,
    Ints,
    Recursion,
    check_sizes,
    descending,
    require_prime,
)


@dataclass(frozen=True)
class Factorial(Recursion):
    """n! for n ≥ 1, with k significant figures (the thesis: 7) or in full."""

    name: ClassVar[str] = "factorial"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="Stirling's series (with three terms exact to 7 figures for n ≤ 170, except n = 1, 2, 3, 6)",
        depth="TC0 (iterated product: Hesse, Allender, Barrington 2002)",
        control="sum",
    )
    splits: ClassVar[str] = "GX"
    sentence: ClassVar[str] = "The factorial n! is the product of the whole numbers from n down to 1."

    n: Sizes = parse_sizes("1-9+15-19")  # training n; the default is the thesis' split
    gap: Sizes = parse_sizes("10-14")  # held-out n between trained ones
    beyond: Sizes = parse_sizes("20-24")  # held-out n above them
    figures: int = 7  # significant figures that are written; 0 writes all digits

    def __post_init__(self) -> None:
        check_sizes(self.name, self.n, self.gap, self.beyond, 1, 400)
        require(0 <= self.figures <= 400, f"figures of factorial must lie between 0 and 400, not {self.figures}")

    @property
    def kind(self) -> Literal["residue", "number", "text"]:
        return "number"

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("n", range(1, 1501)),)  # 1500! has 4115 digits; Python writes no more than 4300

    @property
    def answer_count(self) -> int | None:
        return None

    def start(self, x: Ints) -> Ints:
        return x.astype(object)

    def operands(self, x: Ints) -> Ints:
        return descending(x[:, 0])[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        return state * operand

    def spell(self, value: Any) -> str:
        """``120``, ``3.6288e+06``, ``1.307674e+12``: in full below a million, else rounded half to even."""
        if not self.figures or value < 10**6:
            return str(value)
        context = Context(prec=self.figures, rounding=ROUND_HALF_EVEN)
        sign, digits, exponent = context.create_decimal(Decimal(int(value))).as_tuple()
        assert isinstance(exponent, int)
        mantissa = "".join(map(str, digits)).rstrip("0")
        point = "." + mantissa[1:] if len(mantissa) > 1 else ""
        return f"{'-' if sign else ''}{mantissa[0]}{point}e+{exponent + len(digits) - 1:02d}"

    def round(self, state: Ints) -> Ints:
        return np.asarray(np.vectorize(lambda v: int(Decimal(self.spell(v))), otypes=[object])(state))

    def phrase(self, x: Ints, spell: Callable[[int], str] = str) -> str:
        return f"{spell(x[0])}!"

    def obeys(self, links: Consecutive, outputs: Sequence[Ints]) -> Bools:
        # Both numbers were rounded when they were written: the product may differ by that much, not more.
        n = links.problems[1][:, 0]
        earlier, later = outputs[0][:, 0], outputs[1][:, 0]
        return np.array([self._tied(int(a), int(b), int(k)) for a, b, k in zip(earlier, later, n, strict=True)])

    def _tied(self, earlier: int, later: int, n: int) -> bool:
        slack = n * self._half_unit(earlier) + self._half_unit(later)
        return 2 * abs(earlier * n - later) <= slack and earlier > 0 and later > 0

    def _half_unit(self, value: int) -> int:
        """Twice half a unit of the last written figure; 0 where every figure is written."""
        digits = Decimal(value).adjusted() + 1
        exact = not self.figures or value < 10**6 or digits <= self.figures
        return 0 if exact else int(10 ** (digits - self.figures))


@dataclass(frozen=True)
class FactorialMod(Recursion):
    """n! mod p for 1 ≤ n < p, p prime and part of the input."""

    name: ClassVar[str] = "factorial-mod"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="none known",
        depth="TC0 for unary n (Hesse, Allender, Barrington 2002)",
        control="power-mod",
    )
    symmetries: ClassVar[str | None] = "Wilson pairs: n and p − 1 − n share their answer up to inverse and sign"

    n: Sizes = parse_sizes("1-12+17-30")  # training n (where the axis is n)
    p: Sizes = parse_sizes("5+7+11+13+17+19+23+29+31+37+41+43+47+53+59+61")  # training p
    gap: Sizes = parse_sizes("13-16")  # held-out sizes between trained ones
    beyond: Sizes = parse_sizes("31-36")  # held-out sizes above them
    axis: Literal["n", "p"] = "n"  # what a size is: n, or p (then gap and beyond are unseen primes)

    def __post_init__(self) -> None:
        for p in self.p if self.axis == "n" else (*self.p, *self.gap, *self.beyond):
            require_prime(p, self.name)
        check_sizes(self.name, self.train_sizes, self.gap, self.beyond, 1, 10_000)
        for n in (*self.n, *self.gap, *self.beyond) if self.axis == "n" else ():  # by p, every n < p is in
            require(n < max(self.p), f"n of factorial-mod must be below p: n={n} with p ≤ {max(self.p)}")

    @property
    def train_sizes(self) -> Sizes:
        return self.n if self.axis == "n" else self.p

    @property
    def _size_column(self) -> int:
        return 0 if self.axis == "n" else 1

    @property
    def _primes(self) -> tuple[int, ...]:
        return tuple(self.p) if self.axis == "n" else tuple(sorted({*self.p, *self.gap, *self.beyond}))

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("n", range(1, max(self._primes))), Input("p", self._primes))

    def valid(self, x: Ints) -> Bools:
        return np.asarray(x[:, 0] < x[:, 1])

    def canonical(self, x: Ints) -> Ints:
        n, p = x[:, 0], x[:, 1]
        return np.column_stack([np.minimum(n, p - 1 - n), p])

    @property
    def answer_count(self) -> int | None:
        return max(self._primes) - 1

    @property
    def symbols(self) -> int:
        return max(self._primes) + 1

    def start(self, x: Ints) -> Ints:
        return x[:, :1]

    def operands(self, x: Ints) -> Ints:
        return descending(x[:, 0])[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        return state * operand % x[:, 1:2]

    def consecutive(self, x: Ints) -> Consecutive | None:
        later = x[x[:, 0] > 1]
        if self.axis == "n":
            return super().consecutive(x)
        return Consecutive((later - [[1, 0]], later)) if len(later) else None

    def obeys(self, links: Consecutive, outputs: Sequence[Ints]) -> Bools:
        x = links.problems[1]
        # n! is never 0 mod p, and 0 would follow from 0 whatever n is.
        obeyed = (outputs[0] * x[:, :1] % x[:, 1:] == outputs[1]) & (outputs[1] != 0)
        return np.asarray(obeyed[:, 0])
