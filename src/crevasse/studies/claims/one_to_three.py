"""C12: one to three examples can be enough."""

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from crevasse.lessons.classics import CLASSICS, JUDGED, ORDER, Classic, needed_with
from crevasse.lessons.consolidate import MODEL, RULE, configs
from crevasse.lessons.induce import EXAMPLES, Arguments, Induction, Pairs, induce
from crevasse.programs.parser import parse
from crevasse.spec import describe
from crevasse.studies.base import Arm, Budget, Row
from crevasse.studies.claims.base import (
    FOUND,
    LEARNT,
    Claim,
    Decision,
    Evidence,
    Picture,
    Ruling,
    effect,
    share,
)
from crevasse.studies.measures import Measure
from crevasse.tasks.program import FACTORIAL

#: What the claim is about.
FEW = 3
#: How often a search may look at its clock, which counts these looks instead of seconds, so that what is found does not
#: depend on the machine. A thousand looks took .7 to 3.5 seconds on one core.
LOOKS = {"smoke": 300, "minutes": 2000, "full": 5000}
SMOKE = ("factorial", "triangular", "squares")
#: Trained on the pairs at 1, 3, 5 and asked for 2, 4 and 6 to 12: name, task.
TRAINED = (("factorial", "factorial:figures=0"), ("Fibonacci", "fibonacci:m=0"), ("triangular", "sum:p=0"))
ASKED = "n=1+3+5,gap=2+4,beyond=6-12"
#: Ways to the rule -> in words.
WAYS = {
    "given": "induction, examples at odd n",
    "asked": "induction, it asks for the next example itself",
    "polynomial": "the polynomial through the examples",
}


def interpolated(pairs: Pairs, x: Arguments) -> Fraction | None:
    """What a polynomial through all pairs says at x, exactly; None where there is none with so few terms.

    Its terms are the first monomials by total degree, as many as there are pairs: 1, n, n², … (that of Lagrange), or
    1, a, b, a², ab, …
    """
    powers = sorted(itertools.product(range(len(pairs)), repeat=len(x)), key=lambda p: (sum(p), [-i for i in p]))
    terms = powers[: len(pairs)]

    def row(at: Arguments) -> list[Fraction]:
        return [_monomial(at, term) for term in terms]

    solution = _solve([[*row(at), Fraction(v)] for at, v in pairs.items()])
    if solution is None:
        return None
    return sum((c * m for c, m in zip(solution, row(x), strict=True)), Fraction(0))


def _monomial(at: Arguments, term: Sequence[int]) -> Fraction:
    product = 1
    for base, power in zip(at, term, strict=True):
        product *= base**power
    return Fraction(product)


def _solve(rows: list[list[Fraction]]) -> list[Fraction] | None:
    """Gauss and Jordan's elimination of a square system with its right side; None where it is singular."""
    for i in range(len(rows)):
        pivot = next((r for r in range(i, len(rows)) if rows[r][i]), None)
        if pivot is None:
            return None
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [v / rows[i][i] for v in rows[i]]
        for r in range(len(rows)):
            if r != i:
                rows[r] = [v - rows[r][i] * w for v, w in zip(rows[r], rows[i], strict=True)]
    return [row[-1] for row in rows]


def needed(classic: Classic, looks: int, most: int, asks: bool) -> int | None:
    """The fewest examples after which the shortest program is the function, as `examples_needed` and, where it asks,
    `questions_needed` count them, but in searches that are bounded by work; None if so many are too few."""

    def search(pairs: Pairs) -> Induction:
        return induce(pairs, looks, clock=itertools.count().__next__)

    return needed_with(search, classic, asks, most)


def by_polynomial(classic: Classic, most: int) -> int | None:
    """The fewest examples of the fixed order whose polynomial is the function; None if so many are too few."""
    judged = [(x, v) for x in JUDGED[classic.arguments] if (v := classic.value(*x)) is not None]
    for count in range(1, most + 1):
        pairs = {x: v for x in ORDER[classic.arguments][:count] if (v := classic.value(*x)) is not None}
        if all(interpolated(pairs, x) == v for x, v in judged):
            return count
    return None


class OneToThree(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C12"
    title: ClassVar[str] = "One to three examples can be enough"
    quote: ClassVar[str] = (
        "How can we iterate over MUCH LESS data (like 3 examples or even 1 example) and decide how to update our "
        "policies in a smart way that won't be memorizing."
    )
    hypothesis: ClassVar[str] = (
        "Three examples or fewer are enough for the rule of half of the well-known functions of whole numbers, if the "
        "shortest program that gives them is taken for it; gradient descent on the same examples finds no rule."
    )
    experiment: ClassVar[str] = (
        "Well-known sequences and functions of two numbers (all 35; three of them at the smallest budget), their first "
        "examples in an order that was fixed before any was tried: the shortest program in the language of `crevasse "
        "teach`, and the polynomial through the examples, must be right at every input that is judged. A transformer "
        "is trained on n = 1, 3, 5 of three of them, to answer at once, and asked for 2, 4 and 6 to 12; another on the "
        "traces that the induced program of n! imagines, and asked for sequences to an n that it was not trained on."
    )
    rule: ClassVar[str] = (
        "Supported if induction finds half of the functions or more from three given examples, and gradient descent "
        "on the three pairs, having learnt them, finds none of its three in any seed; half right if it finds fewer "
        "than half, but some; refuted if it finds none, or if gradient descent finds one too; undecided if gradient "
        "descent did not learn the pairs."
    )
    change: ClassVar[str] = (
        "Another choice of functions, or of the language: both contain what mathematicians found worth a name, and "
        "what a language cannot say, or says at length, no number of examples finds in it. And another bound on a "
        "search, whose work is limited: at a fifth of that of `minutes`, which was tried first, it finds 17 of the 35."
    )

    def arms(self, budget: Budget) -> list[Arm]:
        seeds = {"smoke": 1, "minutes": 3, "full": 5}[budget]
        arms = [
            self.make(f"pairs-{name}", f"{name} from n = 1, 3, 5", f"{task},{ASKED}", "direct", "transformer",
                      seeds=seeds, steps=150)
            for name, task in TRAINED
        ]  # fmt: skip
        if budget == "smoke":
            return arms
        first = configs(parse(FACTORIAL), [(1,), (3,), (5,)])[0]
        return [
            *arms,
            self.make("consolidated", "n!, consolidated from imagined traces", describe(first.task), "trace", MODEL,
                      RULE, seeds=1 if budget == "minutes" else 3, steps=first.steps, batch=first.batch,
                      probe_every=first.probe_every),
        ]  # fmt: skip

    def measure(self, budget: Budget, trials: Path, rows: Sequence[Row]) -> list[Measure]:
        looks, most = LOOKS[budget], EXAMPLES if budget == "full" else FEW
        ways: dict[str, Callable[[Classic], int | None]] = {
            "given": lambda classic: needed(classic, looks, most, asks=False),
            "asked": lambda classic: needed(classic, looks, most, asks=True),
            "polynomial": lambda classic: by_polynomial(classic, most),
        }
        return [
            self.note(way, classic.name, find(classic))
            for classic in CLASSICS
            if budget != "smoke" or classic.name in SMOKE
            for way, find in ways.items()
        ]

    def decide(self, evidence: Evidence) -> Ruling:
        counts = {way: [_count(m) for m in evidence.measured(way)] for way in WAYS}
        total = len(counts["given"])
        few = {way: sum(c is not None and c <= FEW for c in found) for way, found in counts.items()}
        arms = [name for name, _ in TRAINED]
        learnt = [name for name in arms if (evidence.mean(f"pairs-{name}", "train") or 0.0) >= LEARNT]
        trained = [name for name in learnt if any(_right(r) for r in evidence.of(f"pairs-{name}"))]
        decision: Decision = "supported" if 2 * few["given"] >= total else "half right"
        if not few["given"] or trained:
            decision = "refuted"
        elif len(learnt) < len(arms):
            decision = "undecided"
        within = evidence.score("consolidated", "interpolation")
        beyond = evidence.score("consolidated", "extrapolation")
        key = (
            f"from three examples or fewer the shortest program is the function for {few['given']} of {total} "
            f"({few['asked']} where it asks for the examples itself), the polynomial for {few['polynomial']}; gradient "
            f"descent on three pairs learns them for {len(learnt)} of {len(arms)} functions and finds the rule of "
            f"{len(trained)}; trained on imagined traces instead, a network answers {share(within and within['mean'])} "
            f"of what it was not trained on, {share(beyond and beyond['mean'])} beyond the longest trace"
        )
        effects = [effect(f"{words}: share from three or fewer", few[w] / max(total, 1)) for w, words in WAYS.items()]
        for name in arms:
            found = evidence.score(f"pairs-{name}", "extrapolation")
            effects.append(effect(f"{name}, trained on three pairs: held-out", found))
        effects += [effect("consolidated: held-out", within), effect("consolidated: beyond", beyond)]
        return Ruling(decision, key, effects, [self._picture(counts)])

    def _picture(self, counts: dict[str, list[int | None]]) -> Picture:
        most = max((c for found in counts.values() for c in found if c), default=FEW)
        return {
            "kind": "lines", "x": "examples", "y": "share of the functions",
            "caption": "Functions that are found from so many examples or fewer",
            "series": [
                {
                    "name": WAYS[way], "x": list(range(1, most + 1)),
                    "y": [sum(c is not None and c <= k for c in found) / len(found) for k in range(1, most + 1)],
                }
                for way, found in counts.items() if found
            ],
        }  # fmt: skip


def _count(measure: Measure) -> int | None:
    return None if measure["value"] is None else round(measure["value"])


def _right(row: Row) -> bool:
    """Were the held-out problems answered, between the given ones and beyond?"""
    return min(row["interpolation"] or 0.0, row["extrapolation"] or 0.0) >= FOUND
