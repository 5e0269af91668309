"""Any program of the language as a task: what the program imagines, a network can be trained on."""

import functools
from abc import abstractmethod
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from crevasse.programs.language import (
    BEFORE,
    HELPER,
    LAST,
    MOD,
    OVER,
    Closed,
    Expression,
    Helped,
    Operation,
    Tail,
    TooLargeError,
    UndefinedError,
    compute,
    run,
    stops,
    text,
    value,
)  # fmt: skip
from crevasse.programs.language import Program as Parsed
from crevasse.programs.language import Recursion as Recursive
from crevasse.programs.parser import parse
from crevasse.spec import Sizes, parse_sizes, require
from crevasse.tasks.base import Bools, Facts, Input, Ints, Solution, Task, check_sizes
from crevasse.tasks.pairs import Table

FACTORIAL = "f(0) = 1; f(n) = n · f(n-1)"
#: Letters that count the steps that are left, and those that count the numbers from the first one on.
LEFT, PLACE = ascii_lowercase, ascii_uppercase
#: So a program is followed so many steps, and numbers of more digits are not written.
STEPS, DIGITS = len(LEFT) - 1, 400


def spelt(program: Parsed) -> str:
    """A program as the option `source` holds it: with ; for the commas of f(a, b), as commas part options."""
    return text(program).replace(",", ";") if len(program.arguments) == 2 else text(program)


def read_source(source: str) -> Parsed:
    """The inverse of `spelt`, which also takes the usual text. Raises UserError."""
    return parse(source.replace(";", ",") if source.replace(" ", "").startswith("f(a;") else source)


def begins(program: Parsed) -> int:
    """The first argument at which a sequence is defined: its start, or 1 for a closed form with a gap at 0."""
    if isinstance(program, Closed) and len(program.arguments) == 1:
        return int(run(program, 0) is None)
    return getattr(program, "start", 0)


@functools.lru_cache(maxsize=100_000)
def follow(program: Parsed, *problem: int) -> tuple[str, ...] | None:
    """The states on the way, written, and the value last; None where one is undefined, or there are too many.

    problem: n, k of a sequence, with the states f(k), f(k+1), …, f(n): ``cB1``, ``bC2``, ``aD6`` from 1 to 3 have two
    steps left, one, none, and are the second, third, fourth number. a, b of a function of two numbers, with f(a, 0), …,
    f(a, b) from where they are defined: ``aD3,27``; of a tail call its arguments: ``18,12;``.
    """
    try:
        return _calls(program, *problem) if isinstance(program, Tail) else _values(program, *problem)
    except (UndefinedError, TooLargeError):
        return None


def _calls(program: Tail, a: int, b: int) -> tuple[str, ...]:
    found = [(a, b)]
    while not stops(program.stop, a, b):
        env = {"a": a, "b": b}
        a, b = value(program.a, env), value(program.b, env)
        found.append((a, b))
        if len(found) > STEPS + 1:
            raise TooLargeError
    return (*(f"{_digits(a)},{_digits(b)};" for a, b in found), _digits(value(program.base, {"a": a, "b": b})))


def _values(program: Parsed, *problem: int) -> tuple[str, ...]:
    *head, n, k = problem if len(program.arguments) == 1 else (*problem, 0)
    first = 0 if head else begins(program)
    if head:
        k = next((j for j in range(n) if run(program, *head, j) is not None), n)
    if not first <= k <= n <= first + STEPS:
        raise UndefinedError
    found = [_digits(compute(program, *head, i)) for i in range(k, n + 1)]
    before = "".join(f"{a}," for a in head)
    return (*(f"{LEFT[n - i]}{PLACE[i - first]}{before}{v}" for i, v in enumerate(found, k)), found[-1])


def _digits(number: int) -> str:
    if abs(number) >= 10**DIGITS:
        raise TooLargeError
    return str(number)


class _Written(Task):
    """What both tasks share: the first state is the problem, the others are the trace, as text."""

    source: str

    @functools.cached_property
    def program(self) -> Parsed:
        """What the source says."""
        return read_source(self.source)

    @property
    def kind(self) -> Literal["residue", "number", "text"]:
        return "text"

    @abstractmethod
    def line(self, problem: tuple[int, ...]) -> tuple[str, ...] | None:
        """The states of a problem, and its answer last; None where there is none."""

    def _lines(self, x: Ints) -> list[tuple[str, ...]]:
        return [found for row in x.tolist() if (found := self.line(tuple(row)))]

    def valid(self, x: Ints) -> Bools:
        return np.array([self.line(tuple(row)) is not None for row in x.tolist()], dtype=bool)

    @functools.cached_property
    def table(self) -> Table:
        """All problems there are, for the alphabet that they are written in."""
        x = self.every(Sizes(self.sizes))
        found = self.solve(x)
        assert found.states is not None
        return Table(self.texts(x), found.answers[:, 0], found.states[:, 0, 0], None, x[:, 0])

    def texts(self, x: Ints) -> NDArray[np.object_]:
        """The problems as they are written. (problem,)"""
        return _texts([line[0] for line in self._lines(x)])

    def solve(self, x: Ints, rounded: bool = False) -> Solution:
        lines = self._lines(x)
        traces = _texts(["".join(line[1:-1]) for line in lines])
        return Solution(_texts([line[-1] for line in lines])[:, None], traces[:, None, None], None)


def _texts(of: list[str]) -> NDArray[np.object_]:
    out = np.empty(len(of), object)
    out[:] = of
    return out


@dataclass(frozen=True)
class Program(_Written):
    """A program of `crevasse teach`: f(n) from f(k) on, or f(a, b), with all states on the way as the trace.

    Tested are whole sequences, from the first number to an n that no training problem of this kind has. Training has
    those to other n, and those that begin at a later k, which are imagined to help and end at any n up to the largest.
    So what stands in a held-out trace is the beginning of a longer trained one, and its end the end of others: a
    network may have the line by heart, and has only to count its steps and stop in time. Sizes beyond ask for numbers
    that no trace has, and `program-mod` for states that the sequence need not have: these cannot be known by heart.
    """

    name: ClassVar[str] = "program"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="that of the program, if it has one",
        depth="that of the program",
        control="program with a closed form (source=f(n) = n · n)",
    )

    source: str = FACTORIAL  # its text; in f(a; b) semicolons stand for commas
    n: Sizes = parse_sizes("0-2+4-6+8-9+11-13+15-17")  # training n (b of two); the first also stands for later k
    gap: Sizes = parse_sizes("3+7+10+14")  # held-out ones between trained ones
    beyond: Sizes = parse_sizes("18-19")  # held-out ones above them

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", spelt(self.program))
        first = begins(self.program)
        check_sizes(self.name, self.n, self.gap, self.beyond, first, first + STEPS)
        require(self._pairs or first in self.n, f"training n of {self.name} must begin with {first}, the first one")
        for size in self.sizes:
            require(
                len(self.every(Sizes((size,)))) > 0,
                f"{self.source[:60]!r} is undefined at {size}, takes more than {STEPS} steps or {DIGITS} digits",
            )

    @property
    def _pairs(self) -> bool:
        return len(self.program.arguments) == 2

    @property
    def splits(self) -> str:  # type: ignore[override]
        return "GXR" if self._pairs else "GX"

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    @property
    def inputs(self) -> tuple[Input, ...]:
        first = begins(self.program)
        if self._pairs:
            return (Input("a", range(max(self.sizes) + 1)), Input("b", range(STEPS + 1)))
        every = range(first, first + STEPS + 1)
        return (Input("n", every), Input("k", every, default=first))

    def size(self, x: Ints) -> Ints:
        """b; or n, and the first n for what begins later."""
        first = begins(self.program)
        return np.asarray(x[:, 1] if self._pairs else np.where(x[:, 1] == first, x[:, 0], first))

    def line(self, problem: tuple[int, ...]) -> tuple[str, ...] | None:
        return follow(self.program, *problem)

    def count(self, sizes: Sizes) -> int:
        return len(self.every(sizes))

    def every(self, sizes: Sizes) -> Ints:
        first, last = begins(self.program), max(self.n)
        rows: list[tuple[int, int]] = []
        for s in sizes:
            if self._pairs:
                rows += [(a, s) for a in range(max(self.sizes) + 1)]
                continue
            rows.append((s, first))
            if s == first:
                rows += [(n, k) for k in range(first + 1, last + 1) for n in range(k, last + 1)]
        found = np.array(rows, np.int64).reshape(-1, 2)
        return found[self.valid(found)]

    @property
    def answer_count(self) -> int | None:
        return None


@dataclass(frozen=True)
class ProgramMod(_Written):
    """n steps of a recursion modulo m from any state: k, f(k), and what else it remembers: f(k-1), or g(k).

    Such states are imagined: few of them ever occur in the sequence. A start is held out with all its numbers of steps,
    so that no trace of a held-out problem is the beginning of a trained one, though its single steps occur in others.
    """

    name: ClassVar[str] = "program-mod"
    facts: ClassVar[Facts] = Facts(
        recursive=True,
        closed_form="that of the program, if it has one",
        depth="that of the program",
        control="program (the sequence itself)",
    )
    symmetries: ClassVar[str | None] = "one start, whatever the number of steps"
    splits: ClassVar[str] = "R"

    source: str = FACTORIAL  # its text: a recursion without / and mod
    m: int = 7  # modulus
    n: Sizes = parse_sizes("1-6")  # numbers of steps

    def __post_init__(self) -> None:
        require(
            isinstance(self.program, Recursive | Helped) and not _operators(*self._trees) & {OVER, MOD},
            f"{self.name} goes on from any state: it takes a recursion f(n) without / and mod",
        )
        object.__setattr__(self, "source", spelt(self.program))
        require(2 <= self.m <= len(PLACE), f"m of {self.name} must be 2 to {len(PLACE)}, not {self.m}")
        check_sizes(self.name, self.n, Sizes(()), Sizes(()), 1, STEPS)

    @property
    def _trees(self) -> list[Expression]:
        """One for each value that is computed in a step."""
        program = self.program
        if isinstance(program, Helped):
            return [program.body, program.helper]
        return [program.body] if isinstance(program, Recursive) else []

    @property
    def _calls(self) -> tuple[str, ...]:
        """What the other numbers of a state are to the next step."""
        if isinstance(self.program, Helped):
            return (LAST, HELPER)
        return (LAST, BEFORE)[: len(getattr(self.program, "first", ()))]

    @property
    def train_sizes(self) -> Sizes:
        return self.n

    @property
    def inputs(self) -> tuple[Input, ...]:
        names = ("k", "f", "before" if BEFORE in self._calls else "g")[: 1 + len(self._calls)]
        return (*(Input(name, range(self.m)) for name in names), Input("n", range(1, STEPS + 1)))

    def canonical(self, x: Ints) -> Ints:
        return x[:, :-1]

    def line(self, problem: tuple[int, ...]) -> tuple[str, ...] | None:
        k, *past, n = problem
        found = []
        for left in range(n, -1, -1):
            found.append(f"{LEFT[left]}{PLACE[k]}{','.join(map(str, past))}")
            env = {"n": k + 1, **dict(zip(self._calls, past, strict=True))}
            new = [value(tree, env) % self.m for tree in self._trees]
            answer, past, k = past[0], [*new, *past][: len(past)], (k + 1) % self.m
        return (*found, str(answer))

    @property
    def answer_count(self) -> int | None:
        return self.m


def _operators(*trees: Expression) -> set[str]:
    inner = [side for tree in trees if isinstance(tree, Operation) for side in (tree.left, tree.right)]
    return {tree.operator for tree in trees if isinstance(tree, Operation)} | (_operators(*inner) if inner else set())
