"""Expressions in brackets, modulo 5."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from crevasse.errors import UserError
from crevasse.spec import Sizes, parse_sizes
from crevasse.tasks.base import BLANK, Bools, Consecutive, Facts, Input, Ints, Solution, Task, check_sizes

CHARACTERS = "01234+-*()"
PLUS, MINUS, TIMES, OPEN, CLOSE = range(5, 10)
_OPERATIONS = (PLUS, MINUS, TIMES)


class _Expression(Input):
    """An input that is typed as it is read: ``((1+2)*3)``."""

    def parse(self, text: str) -> list[int]:
        for character in text:
            if character not in CHARACTERS + " ":
                raise UserError(f"{self.name} is written with {' '.join(CHARACTERS)}, not {character!r}")
        return [CHARACTERS.index(c) for c in text if c != " "]


@dataclass(frozen=True)
class Brackets(Task):
    """The value mod 5 of an expression with a pair of brackets around each operation: ``((1+2)*3)``."""

    # The trace is the value of each pair in the order in which they close, so that what is inside comes before what it
    # is needed for. There is no tool: a call begins with the last result, and a step may take two older ones.

    name: ClassVar[str] = "brackets"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="none",
        depth="NC1-complete (Buss 1987; over a finite ring Buss, Cook, Gupta, Ramachandran 1992)",
        control="cycle (a sum mod 5 without brackets)",
    )
    symmetries: ClassVar[str | None] = "order and grouping of what is added up, and of what is multiplied"
    splits: ClassVar[str] = "XR"
    sentence: ClassVar[str] = "Work out the expression, and keep the remainder after division by 5."

    n: Sizes = parse_sizes("1-4")  # training numbers of operations
    beyond: Sizes = parse_sizes("5-6")  # held-out numbers of operations above them

    def __post_init__(self) -> None:
        check_sizes(self.name, self.n, Sizes(()), self.beyond, 1, 100)

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (_Expression("x", range(len(CHARACTERS)), sequence=True),)

    def valid(self, x: Ints) -> Bools:
        return np.array([_reduce(row) is not None for row in _rows(x)], dtype=bool)

    def canonical(self, x: Ints) -> Ints:
        return _padded(map(_sorted, _rows(x)))

    def size(self, x: Ints) -> Ints:
        return np.asarray(np.isin(x, _OPERATIONS).sum(1))

    def count(self, sizes: Sizes) -> int:
        return sum(math.comb(2 * s, s) // (s + 1) * 3**s * 5 ** (s + 1) for s in sizes)

    def every(self, sizes: Sizes) -> Ints:
        return _padded(_infix(symbols) for s in sizes for symbols in _postfix(s))

    def sample(self, rng: np.random.Generator, count: int, sizes: Sizes) -> Ints:
        drawn = rng.choice(np.array(sizes, dtype=np.int64), count)
        rows: list[list[int]] = [[]] * count
        for s in sorted(set(drawn.tolist())):
            at = np.flatnonzero(drawn == s)
            for i, symbols in zip(at, _random_postfix(rng, len(at), s).tolist(), strict=True):
                rows[i] = _infix(symbols)
        return _padded(rows)

    @property
    def answer_count(self) -> int | None:
        return 5

    @property
    def symbols(self) -> int:
        return len(CHARACTERS)

    def spell(self, value: Any) -> str:
        """A symbol as its character: 0 to 4 are themselves."""
        return CHARACTERS[value]

    def phrase(self, x: Ints, spell: Callable[[int], str] = str) -> str:
        return "".join(spell(v) if v <= 4 else CHARACTERS[v] for v in x if v != BLANK) + " mod 5"

    def solve(self, x: Ints, rounded: bool = False) -> Solution:
        steps = int(self.size(x).max(initial=0))
        states = np.full((len(x), steps + 1, 1), BLANK)  # nothing is worked out before the first step
        operands = np.full((len(x), steps, 3), BLANK)
        answers = x[:, :1].copy()
        for i, row in enumerate(_rows(x)):
            for t, (a, op, b) in enumerate(_reduce(row) or ()):
                answers[i] = states[i, t + 1] = _value(a, op, b)
                operands[i, t] = a, op, b
        return Solution(answers, states, operands)

    def consecutive(self, x: Ints) -> Consecutive | None:
        """An expression with a bare number on one side of its last operation, after what is on the other side."""
        rows = [row for row in _rows(x) if len(row) > 5 and min(row[1], row[-2]) <= 4]
        whole, inner = _padded(rows, x.shape[1]), _padded((_peel(row)[0] for row in rows), x.shape[1])
        told = (self.solve(inner).answers != 0) | (self.solve(whole).answers != 0)
        keep = told[:, 0] & np.isin(self.size(inner), self.sizes)
        return Consecutive((inner[keep], whole[keep])) if keep.any() else None

    def obeys(self, links: Consecutive, outputs: Sequence[Ints]) -> Bools:
        follows = [_peel(row)[1](int(v)) for row, v in zip(_rows(links.problems[1]), outputs[0][:, 0], strict=True)]
        told = (outputs[0] != 0) | (outputs[1] != 0)
        return np.asarray((np.array(follows)[:, None] == outputs[1]) & told)[:, 0]


def _rows(x: Ints) -> list[list[int]]:
    return [[v for v in row if v != BLANK] for row in x.tolist()]


def _padded(rows: Iterable[Sequence[int]], width: int = 0) -> Ints:
    """The inverse of `_rows`. (row, column), at least `width` columns"""
    found = list(rows)
    out = np.full((len(found), max([width, 1, *map(len, found)])), BLANK, np.int64)
    for line, row in zip(out, found, strict=True):
        line[: len(row)] = row
    return out


def _value(a: int, op: int, b: int) -> int:
    return (a + b if op == PLUS else a - b if op == MINUS else a * b) % 5


def _reduce(row: Sequence[int]) -> list[tuple[int, int, int]] | None:
    """a, operation, b of each pair of brackets in the order in which they close; None for what is no expression."""
    stack: list[int] = []
    steps = []
    for symbol in row:
        if symbol != CLOSE:
            stack.append(symbol)
            continue
        if len(stack) < 4 or stack[-4] != OPEN or stack[-3] > 4 or stack[-2] not in _OPERATIONS or stack[-1] > 4:
            return None
        steps.append((stack[-3], stack[-2], stack[-1]))
        stack[-4:] = [_value(*steps[-1])]
    return steps if len(stack) == 1 and stack[0] <= 4 else None


def _sorted(row: Sequence[int]) -> list[int]:
    """An expression with every sum and every product flat and in order; the operation stands before its operands."""
    stack: list[Any] = []  # operations, and pairs of one's last operation and the operands of that
    for symbol in row:
        if symbol != CLOSE:
            stack += [] if symbol == OPEN else [symbol if symbol > 4 else (None, [(symbol,)])]
            continue
        a, op, b = stack[-3:]
        parts = [part for side in (a, b) for part in (side[1] if side[0] == op != MINUS else [_written(*side)])]
        stack[-3:] = [(op, parts if op == MINUS else sorted(parts))]
    return list(_written(*stack[0]))


def _written(op: int | None, parts: list[tuple[int, ...]]) -> tuple[int, ...]:
    flat = tuple(itertools.chain(*parts))
    return flat if op is None else (OPEN, op, *flat, CLOSE)


def _peel(row: Sequence[int]) -> tuple[Sequence[int], Callable[[int], int]]:
    """An expression with a bare number on one side -> the other side, and what becomes of the other side's value."""
    if row[1] <= 4:
        return row[3:-1], lambda v: _value(row[1], row[2], v)
    return row[1:-3], lambda v: _value(v, row[-3], row[-2])


def _infix(postfix: Iterable[int]) -> list[int]:
    """``1 2 +`` -> ``(1+2)``."""
    stack: list[list[int]] = []
    for symbol in postfix:
        if symbol <= 4:
            stack.append([symbol])
        else:
            *stack, a, b = stack
            stack.append([OPEN, *a, symbol, *b, CLOSE])
    return stack[0]


def _postfix(size: int) -> Iterable[tuple[int, ...]]:
    """Every expression with `size` operations, operations last."""
    for operations in itertools.combinations(range(2 * size + 1), size):
        # The i-th operation (from 0) needs i + 2 numbers before it.
        if all(at - i >= i + 2 for i, at in enumerate(operations)):
            yield from itertools.product(*(_OPERATIONS if at in operations else range(5) for at in range(2 * size + 1)))


def _random_postfix(rng: np.random.Generator, count: int, size: int) -> Ints:
    """Expressions with `size` operations, operations last, all equally likely. (count, 2·size + 1)

    Of the rotations of a word of size + 1 numbers and size operations just one is an expression: the one that begins
    after the last lowest point (the cycle lemma: Dvoretzky, Motzkin 1947).
    """
    length = 2 * size + 1
    kind = rng.permuted(np.tile([1] * (size + 1) + [-1] * size, (count, 1)), axis=1)
    begin = length - kind.cumsum(1)[:, ::-1].argmin(1)
    kind = np.take_along_axis(kind, (begin[:, None] + np.arange(length)) % length, axis=1)
    return np.where(kind > 0, rng.integers(0, 5, kind.shape), rng.integers(PLUS, TIMES + 1, kind.shape))
