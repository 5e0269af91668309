"""C12: what it computes, against other sources; how it decides, on evidence made up for each verdict."""

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import sympy

from crevasse.lessons.classics import CLASSICS, ORDER, examples_needed
from crevasse.lessons.induce import induce
from crevasse.programs.language import text
from crevasse.spec import describe
from crevasse.studies import BUDGETS
from crevasse.studies.claims.base import Evidence
from crevasse.studies.claims.one_to_three import (
    FEW,
    LOOKS,
    SMOKE,
    TRAINED,
    WAYS,
    OneToThree,
    by_polynomial,
    interpolated,
    needed,
)
from crevasse.tasks import make_splits
from crevasse.tasks.program import FACTORIAL

CLAIM = OneToThree()
BY_NAME = {c.name: c for c in CLASSICS}


def ruling(given, train=1.0, held_out=(0.0, 0.0), asked=(), polynomial=()):
    """given, asked, polynomial: examples needed; held_out: interpolation and extrapolation, of the first arm."""
    measures = [
        CLAIM.note(way, str(i), count)
        for way, counts in (("given", given), ("asked", asked), ("polynomial", polynomial))
        for i, count in enumerate(counts)
    ]
    rows = [
        {"arm": f"C12/pairs-{name}", "seed": 0, "status": "done", "train": train, "random": None,
         "interpolation": held_out[0] if first else 0.0, "extrapolation": held_out[1] if first else 0.0}
        for first, (name, _) in zip((True, False, False), TRAINED, strict=True)
    ]  # fmt: skip
    return CLAIM.decide(Evidence(rows, measures, rows))


@pytest.mark.parametrize(
    ("evidence", "decision"),
    [
        ({"given": [1, 3, 4, None]}, "supported"),
        ({"given": [3, 4, 5, None]}, "half right"),
        ({"given": [4, 5, None, None]}, "refuted"),
        ({"given": [1, 2, 3, 3], "held_out": (1.0, 1.0)}, "refuted"),
        ({"given": [1, 2, 3, 3], "held_out": (1.0, 0.5)}, "supported"),
        ({"given": [1, 2, 3, 3], "held_out": (0.5, 1.0)}, "supported"),
        ({"given": [1, 2, 3, 3], "train": 0.5}, "undecided"),
    ],
)
def test_the_verdict_follows_the_rule(evidence, decision):
    assert ruling(**evidence).decision == decision


def test_the_key_says_how_many_were_found_and_by_whom():
    found = ruling([1, 3, 4, None], asked=[1, 2, 3, None], polynomial=[None, None, 5, None])
    assert "for 2 of 4 (3 where it asks for the examples itself), the polynomial for 0" in found.key
    shares = {s["name"]: s["y"] for s in found.pictures[0]["series"]}
    assert shares == {
        WAYS["given"]: [0.25, 0.25, 0.5, 0.75, 0.75],
        WAYS["asked"]: [0.25, 0.5, 0.75, 0.75, 0.75],
        WAYS["polynomial"]: [0.0, 0.0, 0.0, 0.0, 0.25],
    }


def test_the_polynomial_is_that_of_sympy():
    n = sympy.Symbol("n")
    for count, pairs in ((3, {1: 1, 3: 6, 5: 120}), (4, {1: 2, 3: -5, 5: 7, 7: 0}), (1, {4: 9})):
        polynomial = sympy.interpolate(list(pairs.items()), n)
        for at in range(9):
            value = polynomial.subs(n, at) if count > 1 else 9
            assert interpolated({(k,): v for k, v in pairs.items()}, (at,)) == Fraction(
                int(sympy.numer(value)), int(sympy.denom(value))
            )


def test_of_two_numbers_it_is_the_one_of_the_first_monomials():
    pairs = {x: 2 + 3 * x[0] - x[1] + 5 * x[0] * x[1] for x in ORDER[2]}
    monomials = np.array([[1, a, b, a * a, a * b] for a, b in pairs], dtype=float)
    assert np.linalg.matrix_rank(monomials) == 5
    assert all(
        interpolated(pairs, (a, b)) == 2 + 3 * a - b + 5 * a * b for a, b in itertools.product(range(6), repeat=2)
    )
    assert interpolated({(1, 1): 1, (2, 1): 2, (3, 1): 4}, (1, 2)) is None  # on one line: b tells nothing


def test_polynomials_are_found_by_as_many_examples_as_they_have_terms():
    counts = {
        name: by_polynomial(BY_NAME[name], 5) for name in ("odd numbers", "squares", "cubes", "product", "factorial")
    }
    assert counts == {"odd numbers": 2, "squares": 3, "cubes": 4, "product": 5, "factorial": None}


def test_examples_are_counted_as_elsewhere_and_a_bounded_search_repeats_itself():
    for name in ("factorial", "squares"):
        assert needed(BY_NAME[name], LOOKS["minutes"], 5, asks=False) == examples_needed(BY_NAME[name])
    assert needed(BY_NAME["factorial"], 0, FEW, asks=False) is None
    once, again = (CLAIM.measure("smoke", Path(), []) for _ in range(2))
    assert once == again
    assert {m["label"] for m in once} == set(SMOKE) and {m["series"] for m in once} == set(WAYS)
    assert all(m["claim"] == "C12" for m in once)


def test_arms_are_trained_on_three_pairs_and_the_program_that_is_consolidated_is_the_induced_one():
    for budget in BUDGETS:
        arms = {a.name: a.config for a in CLAIM.arms(budget)}
        for name, _ in TRAINED:
            splits = make_splits(arms[f"C12/pairs-{name}"].task)
            assert splits.train.x.ravel().tolist() == [1, 3, 5]
            assert sorted(x for t in splits.tests.values() for x in t.x.ravel().tolist()) == [2, 4, *range(6, 13)]
            values = [BY_NAME[name].value(n) for n in (1, 3, 5)]
            assert splits.train.solution.answers.ravel().tolist() == values
    assert text(induce({(1,): 1, (3,): 6, (5,): 120}).programs[0].program) == FACTORIAL
    assert describe(arms["C12/consolidated"].task).startswith("program:")
