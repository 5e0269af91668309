"""All different expressions, shortest first: built from the shorter ones, each function once."""

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from crevasse.programs.language import (
    MINUS,
    MOD,
    OPERATORS,
    PLUS,
    TIMES,
    TOKENS,
    Call,
    Expression,
    Linear,
    expression_bits,
    operation,
)  # fmt: skip

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]

#: Above, whole numbers are no longer exact as floats.
EXACT = 2.0**53
#: Expressions worked out at a time, and kept in all (300 bytes each).
CHUNK, FULL = 100_000, 1_500_000
#: Places at which two expressions are compared.
PROBES = 24
_LEAF = len(OPERATORS)


class EndOfSearchError(Exception):
    """Time is up, or no room is left."""


def apply(operator: str, x: Floats, y: Floats) -> Floats:
    """An operation on whole numbers, kept as floats; NaN where it is undefined, and where the remainder of a number
    beyond 2^53 is asked for. Such numbers are rounded, so that a fit by them is only a candidate."""
    with np.errstate(all="ignore"):
        if operator == PLUS:
            return x + y
        if operator == MINUS:
            return x - y
        if operator == TIMES:
            return x * y
        if operator == MOD:
            exact = (y != 0) & (np.abs(x) < EXACT) & (np.abs(y) < EXACT)
            return np.where(exact, np.mod(x, y), np.nan)
        quotient = x / y
        whole = np.rint(quotient)
        # The quotient of exact numbers is whole in floats only if it is whole (the remainder is at least 1/y).
        fits = np.where(np.abs(x) < EXACT, quotient == whole, np.abs(quotient - whole) <= 1e-9 * np.abs(whole))
        return np.where((y != 0) & fits, whole, np.nan)


def _operation_plan(
    operator: str, left: Callable[[Floats], Floats], right: Callable[[Floats], Floats]
) -> Callable[[Floats], Floats]:
    return lambda env: apply(operator, left(env), right(env))


def hashes(values: Floats) -> NDArray[np.uint64]:
    """64 bits of each row."""
    bits = (np.where(np.isnan(values), np.nan, values) + 0.0).view(np.uint64)  # one NaN, and no -0
    bits = (bits ^ (bits >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(32))) * _factors(values.shape[1])
    return np.asarray((bits ^ (bits >> np.uint64(31))).sum(1, dtype=np.uint64))


@functools.cache
def _factors(count: int) -> NDArray[np.uint64]:
    return np.random.default_rng(1).integers(0, 2**63, count, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


class Bank:
    """Expressions over some leaves by their length. Two that agree at all probes are one function: the first stays.

    Probes are assignments of the leaves' names: a third with values of calls that all small numbers divide, so that
    exact divisions are defined there, a third with tiny ones, a third between. What is defined at no probe is left out,
    and what is defined at less than a third may be taken for something shorter. Expressions have numbers, in the
    order of their length; `late` is asked between chunks of work, and once it says yes EndOfSearchError is raised.
    """

    def __init__(
        self, arguments: Sequence[str], calls: Sequence[str], late: Callable[[], bool] = lambda: False
    ) -> None:
        self.names = (*arguments, *calls)
        self.late = late
        self.leaves: list[Linear | Call] = [*map(Call, calls), *_terms(arguments)]
        self.of_bits: dict[int, Ids] = {}
        self.top = 0
        random = np.random.default_rng(0)
        tiny, smooth = (np.arange(PROBES) % 3 == k for k in (0, 1))

        def draw(low: int, high: int) -> Ids:
            return random.integers(low, high, PROBES)

        arguments_at = [np.where(tiny, draw(1, 4), draw(1, 14)) for _ in arguments]
        calls_at = [np.where(tiny, draw(-1, 4), np.where(smooth, 2520 * draw(1, 99), draw(-9, 60))) for _ in calls]
        self.probes = np.array(arguments_at + calls_at, dtype=np.float64)
        #: Per expression: its operator or _LEAF, its parts (a leaf's: its place among the leaves), the names in it.
        self.operator = np.empty(0, np.int8)
        self.parts = np.empty((0, 2), np.int32)
        self.uses = np.empty(0, np.int64)
        self.values = np.empty((0, PROBES))
        self._seen = np.empty(0, np.uint64)
        names = [leaf.name for leaf in self.leaves]
        self._leaf_name = np.array([self.names.index(name) if name else 0 for name in names])
        lines = [(1, 0) if isinstance(leaf, Call) else (leaf.scale, leaf.shift) for leaf in self.leaves]
        self._scale, self._shift = np.array(lines, dtype=np.float64).T
        self._leaf_uses = np.where([bool(name) for name in names], 1 << self._leaf_name, 0)
        self._leaf_bits = np.array([expression_bits(leaf, len(arguments)) for leaf in self.leaves])

    def in_time(self) -> None:
        """Raises EndOfSearchError when it is late."""
        if self.late():
            raise EndOfSearchError

    def level(self, bits: int) -> Ids:
        """The functions whose shortest expression has so many bits."""
        while self.top < bits:
            self._grow(self.top + 1)
        return self.of_bits.get(bits, np.empty(0, np.int64))

    def tree(self, number: int) -> Expression:
        """An expression by its number."""
        left, right = map(int, self.parts[number])
        kind = self.operator[number]
        return self.leaves[left] if kind == _LEAF else operation(OPERATORS[kind], self.tree(left), self.tree(right))

    def evaluate(self, ids: Ids, env: Floats) -> Floats:
        """The value of each expression, (expression,), where env (name, expression) holds a column for each."""
        return self.plan(ids)(env)

    def plan(self, ids: Ids) -> Callable[[Floats], Floats]:
        """`evaluate` of these expressions, to be called more than once."""
        kinds = self.operator[ids]
        groups: list[tuple[Ids, Callable[[Floats], Floats]]] = []
        for kind in np.flatnonzero(np.bincount(kinds, minlength=_LEAF + 1)):
            here = np.flatnonzero(kinds == kind)
            left, right = self.parts[ids[here]].T.astype(np.int64)
            if kind == _LEAF:
                groups.append((here, self._leaf_plan(left)))
            else:
                groups.append((here, _operation_plan(OPERATORS[kind], self.plan(left), self.plan(right))))

        def values(env: Floats) -> Floats:
            out = np.empty(len(ids))
            for here, group in groups:
                out[here] = group(env[:, here])
            return out

        return values

    def _leaf_plan(self, leaves: Ids) -> Callable[[Floats], Floats]:
        name, scale, shift = self._leaf_name[leaves], self._scale[leaves], self._shift[leaves]
        columns, number = np.arange(len(leaves)), scale == 0

        def values(env: Floats) -> Floats:
            with np.errstate(all="ignore"):
                return np.asarray(np.where(number, 0.0, scale * env[name, columns]) + shift)

        return values

    def _grow(self, bits: int) -> None:
        leaf = np.flatnonzero(self._leaf_bits == bits)
        values = self._scale[leaf, None] * self.probes[self._leaf_name[leaf]] + self._shift[leaf, None]
        new = [(np.full(len(leaf), _LEAF, np.int8), np.stack([leaf, leaf], 1), values)]
        for kind, i, j in self._candidates(bits):
            self.in_time()
            if len(self.operator) + sum(len(n[0]) for n in new) > FULL:
                raise EndOfSearchError
            values = apply(OPERATORS[kind], self.values[i], self.values[j])
            fresh = self._first(values)
            new.append((np.full(len(fresh), kind, np.int8), np.stack([i[fresh], j[fresh]], 1), values[fresh]))
        operators, parts, values = (np.concatenate(column) for column in zip(*new, strict=True))
        fresh = self._first(values)
        operators, parts, values = operators[fresh], parts[fresh].astype(np.int32), values[fresh]
        uses = np.where(
            operators == _LEAF, self._leaf_uses[parts[:, 0] * (operators == _LEAF)], self._used(parts, operators)
        )
        self.of_bits[bits] = np.arange(len(self.operator), len(self.operator) + len(operators))
        self.operator = np.concatenate([self.operator, operators])
        self.parts = np.concatenate([self.parts, parts])
        self.values = np.concatenate([self.values, values])
        self.uses = np.concatenate([self.uses, uses])
        self._seen = np.sort(np.concatenate([self._seen, hashes(values)]))
        self.top = bits

    def _used(self, parts: NDArray[np.int32], operators: NDArray[np.int8]) -> NDArray[np.int64]:
        inner = np.where((operators == _LEAF)[:, None], 0, parts)
        padded = self.uses if len(self.uses) else np.zeros(1, np.int64)
        return np.asarray(padded[inner[:, 0]] | padded[inner[:, 1]])

    def _candidates(self, bits: int) -> Iterator[tuple[int, Ids, Ids]]:
        """All operations on expressions that come to so many bits: the operator and the numbers of the parts."""
        for kind, operator in enumerate(OPERATORS):
            rest = bits - TOKENS[operator]
            for left in sorted(self.of_bits):
                a, b = self.of_bits[left], self.of_bits.get(rest - left, np.empty(0, np.int64))
                if not len(a) or not len(b) or (operator in (PLUS, TIMES) and left > rest - left):
                    continue
                step = max(1, CHUNK // len(b))
                for at in range(0, len(a), step):
                    i, j = (side.ravel() for side in np.meshgrid(a[at : at + step], b, indexing="ij"))
                    if operator in (PLUS, TIMES) and 2 * left == rest:
                        i, j = i[i <= j], j[i <= j]
                    yield kind, i, j

    def _first(self, values: Floats) -> Ids:
        """The rows that are new functions, each function once, in order."""
        defined = np.flatnonzero(~np.isnan(values).all(1))
        found, first = np.unique(hashes(values[defined]), return_index=True)
        if len(self._seen):
            known = self._seen[np.minimum(np.searchsorted(self._seen, found), len(self._seen) - 1)] == found
            first = first[~known]
        return defined[np.sort(first)]


def _terms(arguments: Sequence[str]) -> list[Linear]:
    """The numbers and linear terms that are tried."""
    numbers = [Linear(0, "", k) for k in range(-3, 11)]
    return numbers + [
        Linear(scale, name, shift) for name in arguments for scale in range(-4, 5) for shift in range(-3, 4) if scale
    ]
