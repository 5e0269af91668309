"""Rules from one to five examples: the shortest programs that give them, and what those say of everything else.

Programs (`crevasse.programs.language`) are tried in the order of their length, so the first that fits is the shortest
of all that the language can say within the constants that are tried. Others follow, up to `SPREAD` bits longer; all are
believed by 2^-bits (Solomonoff 1964; Rissanen 1978). A table of the examples is no program: where nothing short fits,
nothing is found.
"""

import functools
import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from crevasse.errors import UserError
from crevasse.lessons import search
from crevasse.lessons.bank import EndOfSearchError
from crevasse.programs.language import Program, TooLargeError, UndefinedError, compute, run
from crevasse.programs.language import bits as length

Arguments = tuple[int, ...]
Pairs = dict[Arguments, int]

#: Examples at most, the largest input, and the digits of a value at most.
EXAMPLES, LARGEST, DIGITS = 5, 1000, 400
#: Different programs at most, and how much longer than the shortest they may be, in bits.
PROGRAMS, SPREAD = 12, 6
#: Programs are compared, and further examples asked for, on these inputs.
GRID: dict[int, list[Arguments]] = {1: [(n,) for n in range(16)], 2: [(a, b) for a in range(10) for b in range(10)]}


@dataclass(frozen=True)
class Found:
    """A program that gives all examples, its length, and how far it is believed beside the others."""

    program: Program
    bits: int
    share: float


@dataclass(frozen=True)
class Induction:
    """What a few examples say. `complete`: no program was left out for want of time or room."""

    pairs: Pairs
    programs: tuple[Found, ...]
    complete: bool

    def predictions(self, *arguments: int) -> dict[int | None, float]:
        """The values that the programs give, None for those that are undefined there, with their shares."""
        shares: dict[int | None, float] = defaultdict(float)
        for found in self.programs:
            shares[run(found.program, *arguments)] += found.share
        return dict(shares)

    @functools.cached_property
    def next_inputs(self) -> list[Arguments]:
        """Three inputs that come next after the largest example, the last argument counted up."""
        *first, last = max(self.pairs)
        return [(*first, last + i) for i in (1, 2, 3)]

    @functools.cached_property
    def questions(self) -> list[Arguments]:
        """Small inputs not seen yet at which the programs differ, the most telling first: by the expected information,
        which is the entropy of the predictions as programs are certain of what they say."""
        told = {x: _entropy(self.predictions(*x).values()) for x in GRID[len(max(self.pairs))] if x not in self.pairs}
        return sorted((x for x in told if told[x] > 1e-9), key=lambda x: -told[x])

    @property
    def telling(self) -> Arguments | None:
        """The further example that would tell the programs apart best; None where they do not differ."""
        return self.questions[0] if self.questions else None

    @functools.cached_property
    def sure(self) -> float:
        """The share of the programs that say at the next three inputs what the shortest says; 0 without any."""
        said = [[run(found.program, *x) for x in self.next_inputs] for found in self.programs]
        return math.fsum(f.share for f, values in zip(self.programs, said, strict=True) if values == said[0])


def induce(pairs: Pairs, seconds: float = 20.0, clock: Callable[[], float] = time.monotonic) -> Induction:
    """The shortest programs that give all of one to five examples; `pairs` as `parse_pairs` returns them.

    The search ends when all programs up to `SPREAD` bits beyond the shortest were tried, when `PROGRAMS` different
    ones are found, or when the time is up; then, as where no room is left, the result is not complete.
    """
    collection = _Collection(pairs)
    end = clock() + seconds
    complete = True
    try:
        looked = (search.sequences if len(max(pairs)) == 1 else search.functions)(pairs, lambda: clock() >= end)
        for bits, program in looked:
            if collection.full(bits):
                break
            if program:
                collection.add(program)
    except EndOfSearchError:
        complete = False
    return Induction(pairs, collection.found(), complete)


class _Collection:
    """Programs that fit, in the order of their length, each saying something that no shorter one says."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs
        self.grid = GRID[len(max(pairs))]
        self.kept: list[tuple[int, Program, list[int | None]]] = []

    def full(self, bits: int) -> bool:
        return len(self.kept) >= PROGRAMS or (bool(self.kept) and bits > self.kept[0][0] + SPREAD)

    def add(self, program: Program) -> None:
        if any(run(program, *x) != v for x, v in self.pairs.items()):  # floats only propose
            return
        if len(self.grid[0]) == 1 and _has_gaps(program):
            return
        says = [run(program, *x) for x in self.grid]
        if all(any(v is not None and v != k for v, k in zip(says, known, strict=True)) for _, _, known in self.kept):
            # A term such as n+7 is built of two tokens, although it is one: such a program comes a little late.
            self.kept.append((length(program), program, says))
            self.kept.sort(key=lambda one: one[0])

    def found(self) -> tuple[Found, ...]:
        weights = [2.0 ** (self.kept[0][0] - bits) for bits, _, _ in self.kept]
        total = math.fsum(weights)
        return tuple(
            Found(program, bits, weight / total) for (bits, program, _), weight in zip(self.kept, weights, strict=True)
        )


def _has_gaps(program: Program) -> bool:
    """Whether a sequence is undefined somewhere after its first value; a closed form may be so at 0.

    Such a program, that divides and is lucky at the examples, is no rule of all numbers.
    """
    first = max(1, getattr(program, "start", 0))
    for (n,) in GRID[1]:
        if n >= first:
            try:
                compute(program, n)
            except UndefinedError:
                return True
            except TooLargeError:
                return False
    return False


def _entropy(shares: Iterable[float]) -> float:
    """In bits."""
    return -math.fsum(p * math.log2(p) for p in shares if p > 0)


def parse_pairs(texts: Sequence[str]) -> Pairs:
    """``["1=1", "3=6"]`` -> {(1,): 1, (3,): 6}; ``["12,18=6"]`` -> {(12, 18): 6}.

    Raises UserError for none and for more than five, for what is no pair, for inputs outside 0..1000, values with more
    than 400 digits, one and two arguments mixed, and for two values of one input.
    """
    if not 1 <= len(texts) <= EXAMPLES:
        raise UserError(f"a rule is induced from one to five examples (1=1 3=6 5=120), not from {len(texts)}")
    pairs: Pairs = {}
    for text in texts:
        match = re.fullmatch(r"\s*([0-9]+)\s*(?:,\s*([0-9]+)\s*)?=\s*([-−]?[0-9]+)\s*", text, re.ASCII)
        if not match:
            raise UserError(f"{text[:40]!r} is no example (write n=value or a,b=value, inputs from 0 to {LARGEST})")
        if len(match[3].lstrip("-−")) > DIGITS:
            raise UserError(
                f"the value of {text[:20]!r}... has more than {DIGITS} digits, which is all that is allowed"
            )
        if any(len(part) > 9 or int(part) > LARGEST for part in (match[1], match[2] or "0")):
            raise UserError(f"the input in {text[:40]!r} is too large (allowed is 0 to {LARGEST})")
        at = tuple(int(part) for part in (match[1], match[2]) if part)
        result = int(match[3].replace("−", "-"))
        if any(len(at) != len(other) for other in pairs):
            raise UserError("examples are all of one argument (n=value) or all of two (a,b=value)")
        if pairs.get(at, result) != result:
            where = ",".join(map(str, at))
            raise UserError(f"{where}={pairs[at]} and {where}={result} contradict each other")
        pairs[at] = result
    return pairs
