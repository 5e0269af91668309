"""Well-known functions of whole numbers, defined without the language of programs, and how many examples they need.

The order of the examples is the same for all and was fixed before any was tried: the odd numbers, so that none is next
to another, and pairs a > b > 0.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from crevasse.lessons.induce import EXAMPLES, Arguments, Induction, Pairs, induce
from crevasse.programs.language import run

#: The examples, in their order, by the number of arguments.
ORDER: dict[int, list[Arguments]] = {
    1: [(1,), (3,), (5,), (7,), (9,)],
    2: [(6, 4), (9, 6), (5, 2), (8, 3), (10, 4)],
}
#: Where a program must be right to count as the function.
JUDGED: dict[int, list[Arguments]] = {
    1: [(n,) for n in range(13)],
    2: [(a, b) for a in range(11) for b in range(11)],
}


@dataclass(frozen=True)
class Classic:
    """A function by its name in the On-Line Encyclopedia of Integer Sequences; None where it is not defined."""

    name: str
    oeis: str
    value: Callable[..., int | None]
    arguments: int = 1


@cache
def linear(n: int, first: int, second: int, last: int, before: int) -> int:
    """x_n = last · x_(n-1) + before · x_(n-2) from its first two values."""
    x, y = first, second
    for _ in range(n):
        x, y = y, last * y + before * x
    return x


def _derangements(n: int) -> int:
    return sum((-1) ** k * math.factorial(n) // math.factorial(k) for k in range(n + 1))


def _involutions(n: int) -> int:
    return sum(math.comb(n, 2 * k) * math.prod(range(1, 2 * k, 2)) for k in range(n // 2 + 1))


def _motzkin(n: int) -> int:
    return sum(math.comb(n, 2 * k) * math.comb(2 * k, k) // (k + 1) for k in range(n // 2 + 1))


CLASSICS = (
    Classic("factorial", "A000142", math.factorial),
    Classic("Fibonacci", "A000045", lambda n: linear(n, 0, 1, 1, 1)),
    Classic("Lucas", "A000032", lambda n: linear(n, 2, 1, 1, 1)),
    Classic("Pell", "A000129", lambda n: linear(n, 0, 1, 2, 1)),
    Classic("Jacobsthal", "A001045", lambda n: (2**n - (-1) ** n) // 3),
    Classic("odd numbers", "A005408", lambda n: 2 * n + 1),
    Classic("even numbers", "A005843", lambda n: 2 * n),
    Classic("triangular", "A000217", lambda n: math.comb(n + 1, 2)),
    Classic("oblong", "A002378", lambda n: n * (n + 1)),
    Classic("squares", "A000290", lambda n: n**2),
    Classic("cubes", "A000578", lambda n: n**3),
    Classic("tetrahedral", "A000292", lambda n: math.comb(n + 2, 3)),
    Classic("sum of squares", "A000330", lambda n: sum(k**2 for k in range(n + 1))),
    Classic("pentagonal", "A000326", lambda n: n * (3 * n - 1) // 2),
    Classic("hexagonal", "A000384", lambda n: n * (2 * n - 1)),
    Classic("centered squares", "A001844", lambda n: n**2 + (n + 1) ** 2),
    Classic("Euler's n²+n+41", "A202018", lambda n: n**2 + n + 41),
    Classic("powers of 2", "A000079", lambda n: 2**n),
    Classic("powers of 3", "A000244", lambda n: 3**n),
    Classic("Mersenne 2^n-1", "A000225", lambda n: 2**n - 1),
    Classic("alternating signs", "A033999", lambda n: (-1) ** n),
    Classic("Catalan", "A000108", lambda n: math.comb(2 * n, n) // (n + 1)),
    Classic("central binomial", "A000984", lambda n: math.comb(2 * n, n)),
    Classic("double factorial", "A006882", lambda n: math.prod(range(n, 0, -2))),
    Classic("odd factorials (2n-1)!!", "A001147", lambda n: math.prod(range(1, 2 * n, 2))),
    Classic("derangements", "A000166", _derangements),
    Classic("involutions", "A000085", _involutions),
    Classic("n·n!", "A001563", lambda n: n * math.factorial(n)),
    Classic("sum of factorials", "A007489", lambda n: sum(map(math.factorial, range(1, n + 1)))),
    Classic("Motzkin", "A001006", _motzkin),
    Classic("greatest common divisor", "A003989", math.gcd, 2),
    Classic("power", "A004248", lambda a, b: a**b, 2),
    Classic("product", "A004247", lambda a, b: a * b, 2),
    Classic("binomial", "A007318", lambda a, b: math.comb(a, b) if b <= a else None, 2),
    Classic("least common multiple", "A003990", lambda a, b: math.lcm(a, b) if a and b else None, 2),
)


def is_found(classic: Classic, induction: Induction) -> bool:
    """Whether the shortest program is the function, wherever that is defined among the inputs that are judged."""
    if not induction.programs:
        return False
    program = induction.programs[0].program
    right = ((x, classic.value(*x)) for x in JUDGED[classic.arguments])
    return all(value is None or run(program, *x) == value for x, value in right)


def examples_needed(classic: Classic, seconds: float = 20.0) -> int | None:
    """The fewest examples of the fixed order after which the shortest program is the function; None if five are too
    few. `seconds` is the time for one search."""
    return needed_with(lambda pairs: induce(pairs, seconds), classic, asks=False)


def questions_needed(classic: Classic, seconds: float = 20.0) -> int | None:
    """As `examples_needed`, but after the first example the machine asks for the most telling one itself: the first of
    its questions to which there is an answer. Where it has none, the next of the fixed order is given."""
    return needed_with(lambda pairs: induce(pairs, seconds), classic, asks=True)


def needed_with(search: Callable[[Pairs], Induction], classic: Classic, asks: bool, most: int = EXAMPLES) -> int | None:
    """As `examples_needed` and, where it asks, `questions_needed`, by any search; None if `most` are too few."""
    pairs: Pairs = {}
    questions: list[Arguments] = []
    for count in range(1, most + 1):
        for x in itertools.chain(questions, ORDER[classic.arguments]):
            value = classic.value(*x)
            if x not in pairs and value is not None:
                pairs[x] = value
                break
        induction = search(pairs)
        if is_found(classic, induction):
            return count
        questions = induction.questions if asks else []
    return None
