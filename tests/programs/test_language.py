"""Programs: text and back, what they compute against closed forms of math and sympy, their bits, and hostile text."""

import math
import re
from fractions import Fraction

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from crevasse.errors import UserError
from crevasse.programs import language as lang
from crevasse.programs.language import Branch, Call, Closed, Helped, Linear, Recursion, Tail, bits, operation, run, text
from crevasse.programs.parser import parse

CLOSED_FORMS = {
    "f(n) = n · n": lambda n: n**2,
    "f(n) = n · (3n-1) / 2": lambda n: n * (3 * n - 1) // 2,
    "f(0) = 1; f(n) = n · f(n-1)": math.factorial,
    "f(0) = 0; f(1) = 1; f(n) = f(n-1) + f(n-2)": lambda n: int(sympy.fibonacci(n)),
    "f(0) = 1; f(n) = f(n-1) · (4n-2) / (n+1)": lambda n: int(sympy.catalan(n)),
    "f(0) = 1; f(1) = 0; f(n) = (n-1) · (f(n-1) + f(n-2))": lambda n: int(sympy.subfactorial(n)),
    "f(0) = 0; g(0) = 1; f(n) = f(n-1) + g(n-1); g(n) = (n+1) · g(n-1)": lambda n: sum(
        map(math.factorial, range(1, n + 1))
    ),
    "f(0) = 1; f(n) = (-1) · f(n-1)": lambda n: (-1) ** n,
}
TWO = {
    "f(a, b) = if b == 0 then a else f(b, a mod b)": math.gcd,
    "f(a, b) = if b == 0 then 1 else a · f(a, b-1)": lambda a, b: a**b,
    "f(a, b) = if b == 0 or a == b then 1 else f(a-1, b-1) + f(a-1, b)": lambda a, b: (
        math.comb(a, b) if b <= a else None
    ),
    "f(a, b) = a · b": lambda a, b: a * b,
}


@pytest.mark.parametrize("source", [*CLOSED_FORMS, *TWO])
def test_programs_compute_what_their_closed_forms_say(source):
    program = parse(source)
    assert text(program) == source
    if source in TWO:
        assert all(run(program, a, b) == TWO[source](a, b) for a in range(9) for b in range(9))
    else:
        assert [run(program, n) for n in range(40)] == [CLOSED_FORMS[source](n) for n in range(40)]


def trees(names, calls):
    leaf = st.one_of(
        st.builds(lang.constant, st.integers(-20, 20)),
        st.builds(Linear, st.sampled_from([-3, -1, 1, 2, 4]), st.sampled_from(names), st.integers(-3, 3)),
        *([st.sampled_from([Call(c) for c in calls])] if calls else []),
    )
    return st.recursive(
        leaf, lambda part: st.builds(operation, st.sampled_from(lang.OPERATORS), part, part), max_leaves=7
    )


one = [lang.LAST, lang.BEFORE]
numbers = st.integers(-50, 50)
programs = st.one_of(
    st.builds(Closed, trees(["n"], [])),
    st.builds(lambda s, c, e: Recursion(s, (c,), e), st.integers(0, 3), numbers, trees(["n"], one[:1])),
    st.builds(lambda s, c, d, e: Recursion(s, (c, d), e), st.integers(0, 3), numbers, numbers, trees(["n"], one)),
    st.builds(
        Helped, st.integers(0, 3), st.tuples(numbers, numbers),
        trees(["n"], [lang.LAST, lang.HELPER]), trees(["n"], [lang.LAST, lang.HELPER]),
    ),
    st.builds(Closed, trees(["a", "b"], []), st.just(("a", "b"))),
    st.builds(
        Branch, st.sampled_from(list(lang.STOPS)), trees(["a", "b"], []),
        trees(["a", "b"], [lang.DOWN, lang.DIAGONAL, lang.ABOVE]),
    ),
    # Other arguments than a-1 and b-1, which are read as calls of a branch.
    st.builds(
        lambda stop, base, a, b: Tail(stop, base, operation("·", a, b), b),
        st.sampled_from(list(lang.STOPS)), *[trees(["a", "b"], [])] * 3,
    ),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(programs)
def test_what_is_printed_is_read_back(program):
    if len(text(program)) <= 400:
        assert parse(text(program)) == program


def exactly(tree, env):
    """An expression in fractions, None where a quotient is not whole: the meaning of a tree, said once more."""
    if isinstance(tree, Linear):
        return Fraction(tree.scale * env.get(tree.name, 0) + tree.shift)
    x, y = exactly(tree.left, env), exactly(tree.right, env)
    if x is None or y is None or (tree.operator in ("/", "mod") and y == 0):
        return None
    found = {"+": x + y, "-": x - y, "·": x * y, "/": x / (y or 1), "mod": x - y * math.floor(x / (y or 1))}
    found = found[tree.operator]
    return found if found.denominator == 1 else None


@settings(max_examples=150, deadline=None)
@given(trees(["n"], []), st.integers(0, 30))
def test_expressions_are_exact(tree, n):
    assert run(Closed(tree), n) == exactly(tree, {"n": n})


@settings(max_examples=100, deadline=None)
@given(trees(["n"], []), st.integers(1, 12))
def test_a_text_means_what_python_means_by_it(tree, n):
    """Precedence and parentheses, against Python's own reading of the printed text."""
    source = (
        re.sub(r"(\d)n", r"\1*n", lang.written(tree)).translate({ord("·"): "*", ord("/"): "//"}).replace("mod", "%")
    )
    try:
        theirs = eval(source, {"n": n})
    except ZeroDivisionError:
        theirs = None
    ours = run(Closed(tree), n)
    assert ours is None or ours == theirs


def test_no_number_and_no_token_is_cheaper_than_a_code_allows():
    """Kraft's inequality of the numbers, of the families, of the stops and of the tokens of each kind of program."""
    assert sum(2.0 ** -lang.number_bits(k) for k in range(-5000, 5000)) < 1
    assert len({lang.number_bits(k) for k in range(100)}) > 3
    shared = [*lang.OPERATORS, "constant", "linear"]
    for own in (["n", lang.LAST, lang.BEFORE], ["n", lang.LAST, lang.HELPER],
                ["a", "b", lang.DOWN, lang.DIAGONAL, lang.ABOVE]):  # fmt: skip
        assert sum(2.0 ** -lang.TOKENS[t] for t in shared + own) <= 1
    assert sum(2.0**-size for size in lang.STOPS.values()) <= 1
    families = list(lang.FAMILY.items())
    assert sum(2.0**-size for _, size in families[:4]) <= 1 and sum(2.0**-size for _, size in families[4:]) <= 1
    # family 2, f(0) = 1: 1 + 2, then · 3, n 2, f(n-1) 3
    assert bits(parse("f(0) = 1; f(n) = n · f(n-1)")) == 2 + 3 + 3 + 2 + 3


@pytest.mark.parametrize(
    ("source", "at"),
    [
        ("f(n) = n / 2", [3]),  # a remainder
        ("f(n) = 1 / n", [0]),
        ("f(2) = 1; f(n) = f(n-1)", [1]),  # before its start
        ("f(0) = 9; f(n) = f(n-1) · f(n-1)", [1000]),  # digits
        ("f(a, b) = if b == 0 then a else f(a, b+1)", [1, 1]),  # without end
        ("f(a, b) = if b == 0 then a else f(a-1, b) + f(a-1, b-1)", [1000, 1000]),  # steps
        ("f(a, b) = if a == b then 1 else f(a-1, b)", [2, 3]),  # nothing below 0
    ],
)
def test_what_is_undefined_or_too_long_is_none(source, at):
    assert run(parse(source), *at) is None


@pytest.mark.parametrize(
    "source",
    [
        "", ";", "f(n)", "f(n) =", "f(n) = ", "f(n) = m", "f(n) = n n", "f(n) = (n", "f(n) = n)", "f(n) = f(n-1)",
        "f(0) = 1; f(n) = f(n-2)", "f(0) = 1; f(2) = 1; f(n) = f(n-1)", "f(0) = n; f(n) = n", "f(n) = g(n-1)",
        "f(n) = __import__('os').system('true')", "f(n) = n**2", "f(n) = 10^9", "f(n) = n if n else 1",
        "f(n) = " + "(" * 60 + "n" + ")" * 60, "f(n) = " + "n + " * 200 + "n", "f(n) = n; f(n) = n",
        "f(a, b) = if a > b then a else b", "f(a, b) = if b == 0 then f(a, b-1) else a", "f(a, b) = n",
        "f(a, b) = if b == 0 then a else f(b, a", "f(n) = ٣", "f(n) = 1\nimport os", "f(a, b) = f(a-1, b)",
    ],
)  # fmt: skip
def test_all_else_is_refused_in_one_line(source):
    with pytest.raises(UserError) as refused:
        parse(source)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300
