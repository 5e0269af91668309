"""Programs as tasks: answers and traces against closed forms, what is held out, and what is refused."""

import math

import numpy as np
import pytest
import sympy

from crevasse.errors import UserError
from crevasse.programs.parser import parse
from crevasse.spec import Sizes, describe
from crevasse.tasks import make_splits, parse_task
from crevasse.tasks.program import begins, spelt

FIBONACCI = "f(0) = 0; f(1) = 1; f(n) = f(n-1) + f(n-2)"
GCD = "f(a; b) = if b == 0 then a else f(b; a mod b)"
BINOMIAL = "f(a; b) = if b == 0 or a == b then 1 else f(a-1; b-1) + f(a-1; b)"


def made(source, **sizes):
    sizes = {"n": "0-12", "gap": "", "beyond": ""} | sizes
    return parse_task(f"program:source={source}," + ",".join(f"{k}={v}" for k, v in sizes.items()))


def documents(task, x):
    solution = task.solve(x)
    return zip(x.tolist(), task.texts(x), solution.states[:, 0, 0], solution.answers[:, 0], strict=True)


@pytest.mark.parametrize(
    ("source", "known"),
    [
        ("f(0) = 1; f(n) = n · f(n-1)", math.factorial),
        (FIBONACCI, lambda n: int(sympy.fibonacci(n))),
        ("f(0) = 0; g(0) = 1; f(n) = f(n-1) + g(n-1); g(n) = 2 · g(n-1)", lambda n: 2**n - 1),
        ("f(0) = 1; f(n) = 0 - f(n-1)", lambda n: (-1) ** n),
        ("f(n) = n · n", lambda n: n * n),
    ],
)
def test_a_sequence_is_written_from_any_place_to_any_later_one(source, known):
    task = made(source)
    x = task.every(Sizes(task.sizes))
    assert sorted(map(tuple, x.tolist())) == [(n, k) for n in range(13) for k in range(n + 1)]
    for (n, k), first, trace, answer in documents(task, x):
        states = [f"{chr(97 + n - i)}{chr(65 + i)}{known(i)}" for i in range(k, n + 1)]
        assert (first, trace, answer) == (states[0], "".join(states[1:]), str(known(n)))


def test_a_sequence_may_begin_later():
    task = made("f(3) = 5; f(n) = n + f(n-1)", n="3-5")
    assert begins(task.program) == 3
    assert dict.fromkeys(task.every(Sizes((3,)))[:, 1].tolist()) == {3: None, 4: None, 5: None}
    (one,) = documents(task, np.array([[5, 3]]))
    assert one == ([5, 3], "cA5", "bB9aC14", "14")
    assert begins(parse("f(n) = 12 / n")) == 1


def test_functions_of_two_numbers():
    gcd = made(GCD, n="0-20")
    for (a, b), first, trace, answer in documents(gcd, gcd.every(gcd.n)):
        calls = [tuple(map(int, call.split(","))) for call in (first + trace).split(";") if call]
        assert calls[0] == (a, b) and calls[-1] == (math.gcd(a, b), 0) and answer == str(math.gcd(a, b))
        assert all(math.gcd(*call) == math.gcd(a, b) for call in calls)
    choose = made(BINOMIAL)
    x = choose.every(choose.n)
    assert {tuple(row) for row in x.tolist()} == {(a, b) for a in range(13) for b in range(a + 1)}
    for (a, b), first, trace, answer in documents(choose, x):
        states = [f"{chr(97 + b - j)}{chr(65 + j)}{a},{math.comb(a, j)}" for j in range(b + 1)]
        assert (first + trace, answer) == ("".join(states), str(math.comb(a, b)))


@pytest.mark.parametrize(
    ("source", "step"),
    [
        ("f(0) = 1; f(n) = n · f(n-1)", lambda k, f: (k + 1, (k + 1) * f)),
        (FIBONACCI, lambda k, f, before: (k + 1, f + before, f)),
        ("f(0) = 0; g(0) = 1; f(n) = f(n-1) + g(n-1); g(n) = 2 · g(n-1)", lambda k, f, g: (k + 1, f + g, 2 * g)),
    ],
)
def test_steps_from_any_state_are_those_of_whole_numbers_reduced_at_the_end(source, step):
    task = parse_task(f"program-mod:source={source},m=5,n=1-3")
    x = task.every(task.n)
    assert len(x) == 3 * 5 ** len(x[0, :-1])
    for (*state, n), first, trace, answer in documents(task, x):
        states = [tuple(state)]
        for _ in range(n):
            states.append(step(*states[-1]))
        written = [(n - i, s[0] % 5, [v % 5 for v in s[1:]]) for i, s in enumerate(states)]
        text = "".join(f"{chr(97 + left)}{chr(65 + k)}{','.join(map(str, v))}" for left, k, v in written)
        assert (first + trace, answer) == (text, str(states[-1][1] % 5))


def test_nothing_that_is_trained_on_is_a_whole_sequence_to_a_held_out_n():
    splits = make_splits(parse_task("program"))
    held_out = {n for split in splits.tests.values() for n in split.x[:, 0].tolist()}
    assert held_out == {3, 7, 10, 14, 18, 19}
    assert all(k == 0 for split in splits.tests.values() for k in split.x[:, 1].tolist())
    assert not {(n, k) for n, k in splits.train.x.tolist() if k == 0 and n in held_out}
    # As the docstring says: what begins later may end there, and no trace goes beyond the longest trained n.
    assert [7, 1] in splits.train.x.tolist() and splits.train.x[:, 0].max() == 17


def test_a_source_with_commas_is_a_text_with_semicolons():
    program = parse(GCD.replace(";", ","))
    assert spelt(program) == GCD
    task = made(GCD)
    assert task.program == program and parse_task(describe(task)) == task


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("program:source=__import__('os')", "is no program"),
        ("program:n=0-30", "must lie between 0 and 25"),
        ("program:n=1-2+4-9,gap=3", "must begin with 0"),
        ("program:source=f(n) = n / 2,n=0+2+4,gap=,beyond=5", "is undefined at 2"),
        ("program:source=f(0) = 2; f(n) = f(n-1) · f(n-1),n=0-9,gap=,beyond=12", "digits"),
        ("program-mod:source=f(n) = n", "goes on from any state"),
        ("program-mod:source=f(0) = 1; f(n) = f(n-1) · (4n-2) / (n+1)", "without / and mod"),
        ("program-mod:m=27", "must be 2 to 26"),
    ],
)
def test_what_cannot_be_a_task_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_task(text)
