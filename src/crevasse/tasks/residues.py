"""Powers, Catalan numbers and primorials modulo a prime that is part of the input."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from crevasse.spec import Sizes, parse_sizes, require
from crevasse.tasks.base import (
    BLANK,
    Bools,
    Facts,
    Input,
    Ints,
    Recursion,
    check_sizes,
    is_prime,
    require_prime,
)


@functools.cache
def _primes(low: int, high: int) -> tuple[int, ...]:
    """The primes from low to high, both included."""
    return tuple(filter(is_prime, range(low, high + 1)))


@functools.cache
def _logarithms(p: int) -> NDArray[np.int64]:
    """k of gᵏ = a mod p for each a from 1, where g is the smallest primitive root of the prime p. (p,)"""
    for g in itertools.count(1):
        powers = [1]
        while (power := powers[-1] * g % p) != 1:
            powers.append(power)
        if len(powers) == p - 1:
            break
    out = np.zeros(p, np.int64)
    out[powers] = np.arange(p - 1)
    return out


@dataclass(frozen=True)
class _ModuloPrime(Recursion):
    """The n-th number of a sequence modulo p; the last two inputs are n and p."""

    p: Sizes = Sizes(_primes(5, 61))  # training p
    n: Sizes = parse_sizes("1-12+17-30")  # training n
    gap: Sizes = parse_sizes("13-16")  # held-out n between trained ones
    beyond: Sizes = parse_sizes("31-36")  # held-out n above them

    def __post_init__(self) -> None:
        require(bool(self.p), f"{self.name} needs at least one p")
        for p in self.p:
            require_prime(p, self.name)
        check_sizes(self.name, self.n, self.gap, self.beyond, 1, 10_000)
        for n in self.sizes:
            require(
                n <= self._longest, f"n of {self.name} must be at most {self._longest} with p ≤ {max(self.p)}: n={n}"
            )

    def _last(self, p: Ints) -> Ints:
        """The largest n that makes a problem, for each p. (problem,)"""
        raise NotImplementedError

    @property
    def _longest(self) -> int:
        return int(self._last(np.array([max(self.p)]))[0])

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("n", range(1, self._longest + 1)), Input("p", tuple(self.p)))

    def valid(self, x: Ints) -> Bools:
        return np.asarray(x[:, -2] <= self._last(x[:, -1]))

    @property
    def answer_count(self) -> int | None:
        return max(self.p) - 1

    @property
    def symbols(self) -> int:
        return max(self.p) + 1


@dataclass(frozen=True)
class PowerMod(_ModuloPrime):
    """aⁿ mod p for 1 ≤ a < p and 1 ≤ n < p, p prime and part of the input."""

    name: ClassVar[str] = "power-mod"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="repeated squaring; n times a discrete logarithm",
        depth="TC0 for unary n (iterated product: Hesse, Allender, Barrington 2002)",
        control="factorial-mod",
    )
    #: That a² to the n is a to the 2n is no symmetry: by such steps every problem is the same as its answer.
    symmetries: ClassVar[str | None] = (
        "a, 1/a and either sign; n and −n modulo the order of a: the answer up to inverse and sign"
    )

    def _last(self, p: Ints) -> Ints:
        return p - 1  # larger n repeat smaller ones (Fermat), and n! has no larger n either

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("a", range(1, max(self.p))), *super().inputs)

    def valid(self, x: Ints) -> Bools:
        return np.asarray(super().valid(x) & (x[:, 0] < x[:, 2]))

    def canonical(self, x: Ints) -> Ints:
        a, n, p = x.T
        half = np.maximum((p - 1) // 2, 1)  # residues up to sign are a cyclic group of this order
        log = np.zeros(len(x), np.int64)
        for q in np.unique(p):
            log[p == q] = _logarithms(int(q))[a[p == q]]
        log %= half
        order = half // np.gcd(log, half)
        return np.column_stack([np.minimum(log, -log % half), np.minimum(n % order, -n % order), p])

    def start(self, x: Ints) -> Ints:
        return x[:, :1]

    def operands(self, x: Ints) -> Ints:
        n = x[:, 1:2]
        index = np.arange(1, max(int(n.max(initial=1)), 1))
        return np.where(index < n, x[:, :1], BLANK)[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        return state * operand % x[:, 2:]


@dataclass(frozen=True)
class Catalan(_ModuloPrime):
    """The Catalan number C(n) mod p for n ≥ 1 and 2n < p, p prime and part of the input."""

    name: ClassVar[str] = "catalan"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="a binomial: (2n)!/(n!(n + 1)!)",
        depth="TC0 for unary n (iterated product: Hesse, Allender, Barrington 2002)",
        control="factorial-mod",
    )
    symmetries: ClassVar[str | None] = (
        "pairs: n and (p − 1)/2 − n share (n + 1)·C(n)/(−4)ⁿ, as (2n choose n) = (−4)ⁿ((p − 1)/2 choose n) mod p"
    )
    operator: ClassVar[str] = "@"

    p: Sizes = Sizes(_primes(5, 97))  # training p

    def _last(self, p: Ints) -> Ints:
        return (p - 1) // 2  # from there to n = p − 2 all are 0, and then the step divides by 0

    def canonical(self, x: Ints) -> Ints:
        n, p = x.T
        return np.column_stack([np.minimum(n, (p - 1) // 2 - n), p])

    def start(self, x: Ints) -> Ints:
        return np.ones((len(x), 1), np.int64)

    def operands(self, x: Ints) -> Ints:
        k = np.arange(1, int(x[:, 0].max(initial=0)) + 1)
        return np.where(k <= x[:, :1], k, BLANK)[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        p = x[:, 1:]  # C(k) = C(k − 1) · (4k − 2)/(k + 1), with operand k
        return np.asarray(state * (4 * operand - 2) % p * _inverse(operand + 1, p) % p)

    def call(self, arguments: Sequence[int], x: Ints) -> list[int] | None:
        if arguments and (arguments[-1] + 1) % int(x[1]) == 0:
            return None  # nothing divides by 0
        return super().call(arguments, x)


_inverse = np.vectorize(lambda v, p: pow(int(v), int(p) - 2, int(p)), otypes=[np.int64])  # Fermat


@dataclass(frozen=True)
class Primorial(_ModuloPrime):
    """The product of the first n primes mod p, all of them below p; p prime and part of the input."""

    name: ClassVar[str] = "primorial"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="none known",
        depth="TC0 for unary n (primes by trial division; iterated product: Hesse, Allender, Barrington 2002)",
        control="factorial-mod",
    )

    p: Sizes = Sizes(_primes(5, 199))  # training p

    def _last(self, p: Ints) -> Ints:
        return np.searchsorted(_primes(2, max(self.p)), p)  # how many primes are smaller: with p itself it is 0

    def start(self, x: Ints) -> Ints:
        return np.full((len(x), 1), 2)

    def operands(self, x: Ints) -> Ints:
        n = x[:, :1]
        index = np.arange(1, max(int(n.max(initial=1)), 1))
        return np.where(index < n, np.array(_primes(2, max(self.p)))[index], BLANK)[:, :, None]

    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        return state * operand % x[:, 1:]
