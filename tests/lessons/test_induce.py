"""Induction: nothing is lost by pruning, the order is that of length, and what is believed adds up."""

import itertools
import math

import numpy as np
import pytest

from crevasse.errors import UserError
from crevasse.lessons.bank import Bank, EndOfSearchError, apply
from crevasse.lessons.classics import CLASSICS, ORDER, examples_needed, is_found, linear
from crevasse.lessons.induce import GRID, PROGRAMS, SPREAD, induce, parse_pairs
from crevasse.programs import language as lang
from crevasse.programs.language import (
    BEFORE,
    LAST,
    TOKENS,
    Closed,
    UndefinedError,
    bits,
    expression_bits,
    run,
    text,
    value,
)
from crevasse.programs.parser import parse

BY_NAME = {classic.name: classic for classic in CLASSICS}


def teach(*examples, **how):
    return induce(parse_pairs(examples), **how)


def at(tree, env):
    try:
        return value(tree, env)
    except UndefinedError:
        return None


def everything(leaves, most):
    """All trees of up to so many bits by length, none left out, by plain recursion."""
    trees = {size: [] for size in range(1, most + 1)}
    for size in trees:
        trees[size] += [leaf for leaf in leaves if expression_bits(leaf) == size]
        for operator, left in itertools.product(lang.OPERATORS, range(1, size)):
            right = size - TOKENS[operator] - left
            pairs = itertools.product(trees[left], trees.get(right, []))
            trees[size] += [lang.Operation(operator, a, b) for a, b in pairs]
    return trees


def test_no_function_is_lost_by_pruning_and_each_stands_at_its_shortest():
    """Against the exhaustive list, compared exactly and at other places than the bank compares."""
    bank, most = Bank(["n"], [LAST, BEFORE]), 15
    # Smooth values too: elsewhere most quotients are undefined, and undefined functions are all alike.
    places = [
        {"n": n, LAST: p, BEFORE: q}
        for n, p, q in itertools.product((1, 2, 5, 7), (27720, -3, 4, 7), (55440, 6, 11, 83160))
    ]
    probes = [dict(zip(bank.names, map(int, probe), strict=True)) for probe in bank.probes.T]
    kept, lost = set(), {}
    count = 0
    for size, trees in everything(bank.leaves, most).items():
        count += len(trees)
        kept |= {tuple(at(bank.tree(int(i)), p) for p in places) for i in bank.level(size)}
        for tree in trees:
            if tuple(at(tree, p) for p in places) not in kept:
                lost[tree] = sum(at(tree, p) is not None for p in probes)
    assert max(lost.values()) < len(probes) / 3 and len(lost) < 0.02 * count
    lengths = {int(i): size for size, ids in bank.of_bits.items() for i in ids}
    told = {i: expression_bits(bank.tree(i)) for i in lengths}
    # What is less than it was built from is a term such as n+7, put together.
    assert all(told[i] == size or isinstance(bank.tree(i), lang.Linear) for i, size in lengths.items())
    assert [*lengths] == [*range(len(bank.operator))] and len(lengths) > 200


def test_the_bank_computes_as_the_language_does():
    bank = Bank(["n"], [LAST, BEFORE])
    bank.level(18)
    ids = np.random.default_rng(0).choice(len(bank.operator), 300)
    for n, p, q in ((3, 7, -2), (1, 2520, 5040), (6, 0, 4)):
        found = bank.evaluate(ids, np.repeat([[float(n)], [float(p)], [float(q)]], len(ids), axis=1))
        exact = [at(bank.tree(int(i)), {"n": n, LAST: p, BEFORE: q}) for i in ids]
        assert [None if math.isnan(v) else int(v) for v in found] == exact


def test_large_quotients_are_kept_as_candidates():
    x, y = math.factorial(25), math.factorial(23)
    assert apply("/", np.array([float(x)]), np.array([float(y)])) == x // y
    assert np.isnan(apply("/", np.array([7.0, 1.0]), np.array([2.0, 0.0]))).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("examples", "program"),
    [
        ("1=1 3=6 5=120", "f(0) = 1; f(n) = n · f(n-1)"),
        ("1=1 3=2 5=5", "f(0) = 0; f(1) = 1; f(n) = f(n-1) + f(n-2)"),
        ("1=30 2=33 3=38", "f(n) = n · n + 29"),
        ("1=43 3=53 5=71", "f(0) = 41; f(n) = f(n-1) + 2n"),
        ("2,3=8 3,2=9 2,5=32", "f(a, b) = if b == 0 then 1 else a · f(a, b-1)"),
        ("4,2=6 5,2=10 6,3=20", "f(a, b) = if b == 0 or a == b then 1 else f(a-1, b-1) + f(a-1, b)"),
    ],
)
def test_the_shortest_program_is_the_rule(examples, program):
    ticks = itertools.count()  # looks at the clock, not seconds
    found = teach(*examples.split(), seconds=3000 if "," in examples else 1200, clock=lambda: next(ticks)).programs[0]
    wanted = parse(program)
    grid = GRID[len(wanted.arguments)]
    assert [run(found.program, *x) for x in grid] == [run(wanted, *x) for x in grid]
    assert found.bits == bits(found.program) <= bits(wanted)


@pytest.mark.parametrize("name", ["factorial", "Lucas", "squares", "sum of squares", "cubes", "powers of 2"])
def test_classics_are_found(name):
    needed = examples_needed(BY_NAME[name])
    assert needed is not None and needed <= 4


def test_classics_begin_as_they_are_known():
    """The table's own definitions, against what the encyclopedia prints, and each differs from all others."""
    known = {"Pell": "0 1 2 5 12 29", "Jacobsthal": "0 1 1 3 5 11", "derangements": "1 0 1 2 9 44",
             "involutions": "1 1 2 4 10 26", "Motzkin": "1 1 2 4 9 21", "double factorial": "1 1 2 3 8 15",
             "sum of factorials": "0 1 3 9 33 153", "Lucas": "2 1 3 4 7 11", "pentagonal": "0 1 5 12 22 35",
             "odd factorials (2n-1)!!": "1 1 3 15 105 945", "tetrahedral": "0 1 4 10 20 35"}  # fmt: skip
    for name, values in known.items():
        assert [BY_NAME[name].value(n) for n in range(6)] == [*map(int, values.split())]
    assert linear(10, 0, 1, 1, 1) == 55
    seen = {tuple(c.value(*x) for x in ORDER[c.arguments]) for c in CLASSICS}
    assert len(seen) == len(CLASSICS) >= 28


def test_every_program_gives_all_examples_and_says_something_new():
    induction = teach("1=1", "3=2", "5=5")
    assert induction.complete and 1 < len(induction.programs) <= PROGRAMS
    lengths = [found.bits for found in induction.programs]
    assert lengths == sorted(lengths) and lengths[-1] <= lengths[0] + SPREAD
    assert sum(found.share for found in induction.programs) == pytest.approx(1)
    first, second = induction.programs[:2]
    assert first.share / second.share == pytest.approx(2.0 ** (second.bits - first.bits))
    for found in induction.programs:
        assert all(run(found.program, *x) == v for x, v in induction.pairs.items())
    said = [tuple(run(found.program, *x) for x in GRID[1]) for found in induction.programs]
    assert len(set(said)) == len(said)


def test_the_telling_example_is_the_one_of_largest_entropy():
    induction = teach("1=1", "3=2", "5=5")
    entropies = {}
    for x in GRID[1]:
        if x not in induction.pairs:
            shares = induction.predictions(*x)
            assert sum(shares.values()) == pytest.approx(1)
            entropies[x] = -sum(p * math.log2(p) for p in shares.values())
    assert entropies[induction.telling] == pytest.approx(max(entropies.values()))
    assert induction.next_inputs == [(6,), (7,), (8,)]
    assert 0 < induction.sure <= 1
    # Its answer leaves fewer programs, and the rule among them.
    (n,) = induction.telling
    after = teach("1=1", "3=2", "5=5", f"{n}={BY_NAME['Fibonacci'].value(n)}")
    assert is_found(BY_NAME["Fibonacci"], after) and after.sure > induction.sure


def test_pairs_that_nothing_explains_give_nothing():
    """A clock that allows so many looks: no guess comes out, however long is looked."""
    ticks = itertools.count()
    induction = teach("1=8271", "2=-5", "4=917263", "7=12", "9=-771", seconds=150, clock=lambda: next(ticks))
    assert (induction.programs, induction.complete, induction.sure, induction.telling) == ((), False, 0.0, None)
    assert induction.predictions(3) == {}


def test_a_search_without_time_is_not_complete():
    assert not teach("1=1", "3=6", "5=120", seconds=0).complete
    with pytest.raises(EndOfSearchError):
        Bank(["n"], [LAST], late=lambda: True).level(12)


def test_what_is_found_in_time_stays_when_time_ends():
    ticks = itertools.count()
    whole = teach("1=1", "3=2", "5=5")
    cut = teach("1=1", "3=2", "5=5", seconds=500, clock=lambda: next(ticks))
    assert not cut.complete and cut.programs[0].program == whole.programs[0].program


def test_programs_undefined_between_the_examples_do_not_count():
    for found in teach("2=1", "4=2", "6=3").programs:
        assert all(run(found.program, n) is not None for (n,) in GRID[1] if n >= 2), text(found.program)
    assert run(parse("f(n) = n / 2"), 3) is None


def test_inputs_and_values_may_be_large():
    huge = teach(f"1000={10**399}", "999=" + str(10**399 // 10), seconds=0)
    assert huge.programs == ()
    fits = teach("5=120", f"30={math.factorial(30)}")
    assert run(fits.programs[0].program, 40) == math.factorial(40)


def test_pairs_are_read():
    assert parse_pairs([" 1=1", "3 = −6"]) == {(1,): 1, (3,): -6}
    assert parse_pairs(["12,18=6", "12,18=6"]) == {(12, 18): 6}


@pytest.mark.parametrize(
    ("examples", "says"),
    [
        (["1=1", "1=2"], "1=1 and 1=2 contradict each other"),
        (["2,3=1", "2,3=0"], "2,3=1 and 2,3=0 contradict each other"),
        ([], "one to five"),
        ([f"{n}=1" for n in range(6)], "one to five"),
        (["1=1", "1,2=3"], "all of one argument"),
        (["-1=1"], "no example"),
        (["1=x"], "no example"),
        (["1=1.5"], "no example"),
        (["1==1"], "no example"),
        (["1,2,3=1"], "no example"),
        (["٣=1"], "no example"),
        (["1=1\n2=2"], "no example"),
        (["1001=1"], "0 to 1000"),
        (["9" * 5000 + "=1"], "0 to 1000"),
        (["1=" + "9" * 401], "400 digits"),
    ],
)
def test_other_pairs_are_refused(examples, says):
    with pytest.raises(UserError, match=says) as refused:
        parse_pairs(examples)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 200


def test_a_closed_form_in_two_arguments():
    assert text(teach("6,4=24", "9,6=54", "5,2=10").programs[0].program) in ("f(a, b) = a · b", "f(a, b) = b · a")
    assert isinstance(teach("6,4=24", "9,6=54").programs[0].program, Closed)
