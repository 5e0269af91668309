"""Collatz, Josephus, Ackermann, brackets and recurrences against sources that know nothing of the code."""

import ast
import functools
import itertools
from collections import Counter, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
import pytest
import sympy

from crevasse.api import solve
from crevasse.errors import UserError
from crevasse.formats import FORMATS
from crevasse.spec import Sizes
from crevasse.tasks import BLANK, Problems, Recursion, Task, make_splits, parse_problem, parse_task

Row = list[int]
LISTED = 3000


def rows_of(x: np.ndarray) -> list[Row]:
    return [[int(v) for v in row if v != BLANK] for row in x]


@functools.cache
def problems(spec: str) -> np.ndarray:
    """The whole domain where it is small, else some of it."""
    task = parse_task(spec)
    if task.count(Sizes(task.sizes)) <= LISTED:
        return task.every(Sizes(task.sizes))
    return task.sample(np.random.default_rng(7), 1000, Sizes(task.sizes))


# --- answers, in other words ----------------------------------------------------------------------


def collatz(x: int, n: int) -> int:
    return x if n == 0 else collatz(3 * x + 1 if x & 1 else x >> 1, n - 1)


def last_in_the_circle(n: int, k: int) -> int:
    """Played out: everybody who is passed goes to the end of the queue."""
    circle = deque(range(n))
    while len(circle) > 1:
        circle.rotate(1 - k)
        circle.popleft()
    return circle[0]


def ackermann(m: int, n: int) -> int:
    """By the definition, in whole numbers."""
    if m == 0:
        return n + 1
    return ackermann(m - 1, ackermann(m, n - 1) if n else 1)


def row_of_ackermann(m: int, n: int) -> int:
    """By 2 ↑^(m−2) (n + 3) − 3: counting on, adding, multiplying and raising."""
    return [1 + n, 2 + (n + 3), 2 * (n + 3), 2 ** (n + 3)][m] - (3 if m else 0)


@functools.cache
def companion_power(coefficients: tuple[int, ...], n: int) -> list[int]:
    """The first row of the companion matrix to the n: a(n) as a combination of the seeds."""
    k = len(coefficients)
    companion = sympy.zeros(k, k)
    for i in range(k - 1):
        companion[i, i + 1] = 1
    companion[k - 1, :] = sympy.Matrix([coefficients[::-1]])
    return [int(v) for v in (companion**n).row(0)]


def by_matrix(coefficients: tuple[int, ...], m: int) -> Callable[[Row], int]:
    return lambda r: sum(c * s for c, s in zip(companion_power(coefficients, r[-1]), r[:-1], strict=True)) % m


@dataclass(frozen=True)
class Oracle:
    answer: Callable[[Row], int]
    #: The state that the n-th step leads to, from the problem alone: its answer for so many steps.
    states: Callable[[Row], list[tuple[int, ...]]]


def recurrence(spec: str, coefficients: tuple[int, ...], m: int) -> tuple[str, Oracle]:
    k, answer = len(coefficients), by_matrix(coefficients, m)
    return spec, Oracle(answer, lambda r: [tuple(answer([*r[:-1], t + i]) for i in range(k)) for t in range(r[-1] + 1)])


def on_a_step(answer: Callable[..., int], at: int, first: int) -> Oracle:
    """Tasks whose states are their answers for smaller inputs in column `at`."""
    return Oracle(
        lambda r: answer(*r),
        lambda r: [(answer(*r[:at], t, *r[at + 1 :]),) for t in range(first, r[at] + 1)],
    )


ORACLES: dict[str, Oracle] = dict(
    [
        ("collatz", on_a_step(collatz, 1, 0)),
        ("collatz:largest=1000000,n=1-60+200,beyond=", on_a_step(collatz, 1, 0)),
        ("josephus", on_a_step(last_in_the_circle, 0, 1)),
        ("josephus:k=2,n=1-60,gap=,beyond=61-70", on_a_step(last_in_the_circle, 0, 1)),
        ("ackermann", on_a_step(lambda m, n, p: row_of_ackermann(m, n) % p, 1, 0)),
        ("ackermann:p=3+5,n=0-50,gap=,beyond=", on_a_step(lambda m, n, p: row_of_ackermann(m, n) % p, 1, 0)),
        ("ackermann:axis=m,m=0-2,gap=,beyond=3", on_a_step(lambda m, n, p: row_of_ackermann(m, n) % p, 1, 0)),
        recurrence("tribonacci", (1, 1, 1), 13),
        recurrence("tribonacci:m=3,n=1-9,gap=,beyond=10-20", (1, 1, 1), 3),
        recurrence("recurrence", (2, 0, 3), 13),
        recurrence("recurrence:coefficients=3,m=7,n=1-9,gap=,beyond=10", (3,), 7),
        recurrence("recurrence:coefficients=1+9999+0+5000,m=10000", (1, 9999, 0, 5000), 10_000),
    ]
)


@pytest.mark.parametrize("spec", ORACLES)
def test_answers_traces_and_calls_agree_with_an_independent_source(spec):
    task, oracle, x = parse_task(spec), ORACLES[spec], problems(spec)
    solution = task.solve(x)
    assert solution.answers[:, 0].tolist() == [oracle.answer(row) for row in rows_of(x)]
    left, right = task.call_widths
    for i in range(0, len(x), max(1, len(x) // 150)):
        states = [tuple(s) for s in solution.states[i].tolist()]
        wanted = oracle.states(rows_of(x[i : i + 1])[0])
        assert states == wanted + [(BLANK,) * left] * (len(states) - len(wanted))
        for before, operand, after in zip(wanted, solution.operands[i].tolist(), wanted[1:], strict=False):
            assert tuple(task.call([*before, *operand[:right]], x[i])) == after
            assert task.call([*before, *operand[:right], 1], x[i]) is None


def test_ackermann_is_its_own_definition_in_whole_numbers():
    task = parse_task("ackermann")
    for m, n, p in itertools.product(range(4), range(6), (17, 43)):
        answer = task.solve(np.array([[m, n, p]])).answers[0, 0]
        assert answer == ackermann(m, n) % p
        assert ackermann(m, n) == row_of_ackermann(m, n)


def test_row_three_is_not_a_function_of_n_mod_p_so_that_row_four_has_no_trace():
    assert row_of_ackermann(3, 0) % 5 != row_of_ackermann(3, 5) % 5


def test_the_calculator_refuses_a_row_that_it_does_not_know():
    assert parse_task("ackermann").call([5, 4], np.array([3, 2, 17])) is None


def test_josephus_with_two_has_its_closed_form():
    task = parse_task("josephus")
    n = np.arange(1, 300)
    answers = task.solve(np.column_stack([n, np.full_like(n, 2)])).answers[:, 0]
    assert answers.tolist() == [2 * (v - 2 ** (v.bit_length() - 1)) for v in n.tolist()]


def test_no_collatz_number_of_the_largest_domain_overflows():
    """The highest point of all starts up to a million is on record, and is far below 2^63."""
    task = parse_task("collatz:largest=1000000")
    states = task.solve(np.array([[704_511, 500]])).states
    assert states.max() == 56_991_483_520


# --- brackets -------------------------------------------------------------------------------------

CHARACTERS = "01234+-*()"
BRACKETS = "brackets:n=1-5,beyond=6-9"


def text_of(row: Row) -> str:
    return "".join(CHARACTERS[v] for v in row)


def value_of(node: ast.expr) -> int:
    return eval(compile(ast.Expression(node), "", "eval")) % 5


def operations(node: ast.expr) -> list[ast.BinOp]:
    """From the inside out, the left side first."""
    return [*operations(node.left), *operations(node.right), node] if isinstance(node, ast.BinOp) else []


def test_expressions_have_the_values_that_python_finds_pair_by_pair():
    task, x = parse_task(BRACKETS), problems(BRACKETS)
    solution = task.solve(x)
    for row, answer, states, taken in zip(rows_of(x), *map(list, vars(solution).values()), strict=True):
        tree = ast.parse(text_of(row), mode="eval").body
        assert answer.tolist() == [eval(text_of(row)) % 5]
        pairs = operations(tree)
        assert [int(v) for v in states[:, 0] if v != BLANK] == [value_of(p) for p in pairs]
        assert [r for r in taken.tolist() if r[0] != BLANK] == [
            [value_of(p.left), {ast.Add: 5, ast.Sub: 6, ast.Mult: 7}[type(p.op)], value_of(p.right)] for p in pairs
        ]
    assert task.size(x).tolist() == [sum(c in "+-*" for c in text_of(row)) for row in rows_of(x)]


def test_the_domain_of_expressions_is_every_one_once():
    def grown(size: int) -> list[str]:
        if size == 0:
            return list("01234")
        return [
            f"({a}{op}{b})"
            for left in range(size)
            for a, op, b in itertools.product(grown(left), "+-*", grown(size - 1 - left))
        ]

    task = parse_task("brackets:n=1-2,beyond=3")
    x = task.every(task.train_sizes)
    assert sorted(map(text_of, rows_of(x))) == sorted(grown(1) + grown(2))
    assert task.count(Sizes((1, 2))) == len(x)
    assert task.count(Sizes((3,))) == len(grown(3))
    assert task.valid(x).all()


def test_expressions_are_drawn_in_all_shapes_equally_often():
    x = parse_task("brackets").sample(np.random.default_rng(0), 5000, Sizes((3,)))
    shapes = Counter(text_of(r).translate(str.maketrans("01234+-*", "00000+++")) for r in rows_of(x))
    assert len(shapes) == 5
    assert all(abs(count - 1000) < 5 * np.sqrt(1000 * 0.8) for count in shapes.values())


@pytest.mark.parametrize("text", ["(1+2", "1+2", "(1+2)3", "()", "(+1)", "((1+2))", "(1+2+3)", ")1+2(", "(1+2))", ""])
def test_what_is_no_expression_is_refused_in_one_line(text):
    with pytest.raises(UserError, match="around each operation") as error:
        parse_problem(parse_task("brackets"), [f"x={text}"])
    assert "\n" not in str(error.value)


# --- symmetries and splits ------------------------------------------------------------------------


def itself(task: Task, row: Row) -> Hashable:
    return tuple(row)


def same_circle(task: Task, row: Row) -> Hashable:
    n, k = row
    return n, tuple(k % i for i in range(1, n + 1))


def same_row(task: Task, row: Row) -> Hashable:
    """Two n are the same where the row goes on alike from both."""
    m, n, p = row
    return m, p, tuple(row_of_ackermann(m, n + i) % p for i in range(p))


def same_window(task: Task, row: Row) -> Hashable:
    *seeds, n = row
    k = len(seeds)
    moved = tuple(v % task.m for i in range(k) for v in companion_power(task.weights, n + i))
    return moved, frozenset([tuple(seeds), tuple(-s % task.m for s in seeds)])


def same_value_by_ring_axioms(task: Task, row: Row) -> Hashable:
    """Sums and products as bags of what they gather, whatever stands in between."""

    def key(node: ast.expr) -> Hashable:
        if not isinstance(node, ast.BinOp):
            return node.value
        kind = type(node.op)
        if kind is ast.Sub:
            return "-", key(node.left), key(node.right)
        return kind.__name__, frozenset(Counter(map(key, gathered(node, kind))).items())

    def gathered(node: ast.expr, kind: type) -> list[ast.expr]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, kind):
            return gathered(node.left, kind) + gathered(node.right, kind)
        return [node]

    return key(ast.parse(text_of(row), mode="eval").body)


SAME = {
    "collatz": itself,
    "josephus": same_circle,
    "ackermann": same_row,
    "brackets": same_value_by_ring_axioms,
    "tribonacci": same_window,
    "recurrence": same_window,
}
SPLIT = [
    ("collatz", 800),
    ("josephus", 100),
    ("josephus:n=1-6,gap=,beyond=7", 70),
    ("ackermann", 150),
    ("ackermann:p=7+31,n=0-20,gap=,beyond=21", None),
    ("ackermann:axis=m,m=0-2,gap=,beyond=3", None),
    ("brackets:n=1-2,beyond=4", 900),
    ("tribonacci", 800),
    ("tribonacci:m=2,n=1-3+5-9,gap=4,beyond=10", None),
    ("recurrence:coefficients=0+1,m=5,n=1-5,gap=,beyond=6", None),
]


@pytest.mark.parametrize(("spec", "train"), SPLIT)
def test_no_symmetry_class_stands_on_two_sides(spec, train):
    task = parse_task(spec)
    splits = make_splits(task, train, steer=20 if train else 0, held_out=200)
    sides = [splits.train, splits.steer, splits.validation, *splits.tests.values()]
    assert len(splits.train) > 0
    keys = [{SAME[task.name](task, r) for r in rows_of(p.x)} for p in sides]
    for one, other in itertools.combinations(keys, 2):
        assert not one & other


@pytest.mark.parametrize("name", SAME)
def test_classes_are_those_of_the_symmetry_restated(name):
    """As many as there are, no fewer: nothing is held out together that is not the same."""
    task = parse_task({"brackets": "brackets:n=1-2,beyond=", "recurrence": "recurrence:m=5"}.get(name, name))
    x = task.every(Sizes(task.sizes))[:6000]
    found = {(SAME[name](task, r), tuple(c)) for r, c in zip(rows_of(x), rows_of(task.canonical(x)), strict=True)}
    assert len(found) == len({a for a, _ in found}) == len({b for _, b in found})


@pytest.mark.parametrize(("spec", "sign"), [("tribonacci", -1), ("recurrence", -1), ("josephus", 1), ("ackermann", 1)])
def test_problems_of_one_class_have_one_answer_up_to_the_stated_sign(spec, sign):
    task, x = parse_task(spec), problems(spec)
    answers: dict[tuple[int, ...], int] = {}
    for row, key, answer in zip(x, map(tuple, task.canonical(x).tolist()), task.solve(x).answers[:, 0], strict=True):
        known = answers.setdefault(key, int(answer))
        assert answer == known or (sign < 0 and (answer + known) % task.m == 0), row


# --- documents and the rule score -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "form", "words", "document"),
    [
        ("collatz", "direct", ["x=7", "n=3"], "7,3=34<end>"),
        ("collatz", "tool", ["x=7", "n=3"], "7,3=7@→22;22@→11;11@→34;#34<end>"),
        ("josephus", "direct", ["n=4", "k=3"], "4 3 0"),
        ("josephus", "trace", ["n=4", "k=3"], "4 3 = 1 1 0 # 0 <end>"),
        ("josephus", "tool:notation=digits", ["n=3", "k=3"], "3,3=0@2→1;1@3→1;#1<end>"),
        ("ackermann", "trace", ["m=3", "n=2", "p=17"], "3 2 17 = 13 12 # 12 <end>"),
        ("ackermann", "tool", ["m=3", "n=1", "p=17"], "3 1 17 = 5 3 → 13 # 13 <end>"),
        ("brackets", "direct", ["((1+2)*3)"], "8 8 1 5 2 9 7 3 9 4"),
        ("brackets", "trace", ["((1+2)*(4-1))"], "8 8 1 5 2 9 7 8 4 6 1 9 9 = 3 3 4 # 4 <end>"),
        ("tribonacci", "direct", ["n=9"], "0 0 1 9 5"),
        ("tribonacci", "trace", ["a0=1", "a1=2", "a2=3", "n=2"], "1 2 3 2 = 2 3 6 3 6 11 # 3 <end>"),
        ("recurrence:coefficients=1+1", "tool:notation=digits", ["a0=5", "a1=9", "n=1"], "5,9,1=5,9+→9,1;#9<end>"),
    ],
)
def test_a_document_reads_as_written(spec, form, words, document):
    task, form = parse_task(spec), FORMATS.parse(form)
    x = parse_problem(task, words)
    encoded = form.encode(form.script(task), Problems(x, task.solve(x)))
    assert form.script(task).text(encoded.tokens[0].tolist()) == document


def test_brackets_have_no_tool_and_say_so():
    task, form = parse_task("brackets"), FORMATS.parse("tool")
    x = parse_problem(task, ["(1+2)"])
    with pytest.raises(UserError, match="no steps for a tool"):
        form.encode(form.script(task), Problems(x, task.solve(x)))


@pytest.mark.parametrize("spec", [*ORACLES, BRACKETS])
def test_true_answers_have_the_full_rule_score_and_others_have_not(spec):
    task, x = parse_task(spec), problems(spec)
    links = task.consecutive(x)
    assert links is not None
    assert len({p.shape for p in links.problems}) == 1  # as wide as each other: they are asked in one batch
    for p in links.problems:
        assert task.valid(p).all()
        assert set(task.size(p).tolist()) <= set(task.sizes)
    truth = [task.solve(p).answers for p in links.problems]
    assert task.obeys(links, truth).all()
    assert not task.obeys(links, [*truth[:-1], truth[-1] + 1]).any()
    assert not task.obeys(links, [np.zeros_like(t) for t in truth]).any()
    for constant in (0, 1):
        assert task.obeys(links, [np.full_like(t, constant) for t in truth]).mean() < 0.5


@pytest.mark.parametrize("factor", [2, 5])
@pytest.mark.parametrize("spec", ["tribonacci", "recurrence"])
def test_a_learner_of_a_recurrence_that_is_wrong_by_one_factor_has_the_rule(spec, factor):
    task = parse_task(spec)
    links = task.consecutive(problems(spec))
    assert task.obeys(links, [task.solve(p).answers * factor % task.m for p in links.problems]).all()


# --- as a person meets them -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "words", "answer", "trace"),
    [
        ("collatz", ["x=6", "n=4"], 16, [6, 3, 10, 5, 16]),
        ("josephus", ["n=5", "k=2"], 2, [0, 0, 2, 0, 2]),
        ("ackermann", ["m=2", "n=3", "p=17"], 9, [3, 5, 7, 9]),
        ("brackets", ["((1+2)*(3 - 4))"], 2, [3, 4, 2]),
        ("brackets", ["4"], 4, []),
        ("tribonacci", ["m=10", "n=3"], 1, [[0, 0, 1], [0, 1, 1], [1, 1, 2], [1, 2, 4]]),
        ("recurrence", ["coefficients=3", "a0=-1", "n=1"], 10, [12, 10]),
    ],
)
def test_a_problem_is_solved_as_it_is_typed(task, words, answer, trace):
    found = solve(task, words)
    assert (found["answer"], found["trace"]) == (answer, trace)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("collatz:largest=0", ["1000000", "not 0"]),
        ("josephus:k=0-4", ["between 1 and 10000"]),
        ("josephus:k=", ["at least one k"]),
        ("ackermann:m=0-4", ["0 to 3", "not 4"]),
        ("ackermann:axis=m,m=0-2,gap=,beyond=4", ["between 0 and 3", "not 4"]),
        ("ackermann:p=2+5", ["odd"]),
        ("ackermann:p=9", ["9", "11"]),
        ("recurrence:coefficients=1+x", ["2+0+3", "1+x"]),
        ("recurrence:coefficients=1+13", ["12", "not 13"]),
        ("recurrence:coefficients=1+0", ["last coefficient"]),
        ("recurrence:coefficients=1+1+1+1+1+1+1+1+1", ["at most 8", "not 9"]),
        ("tribonacci:m=1", ["2 to 10000", "not 1"]),
    ],
)
def test_a_task_that_cannot_be_is_refused_with_what_is_allowed(spec, said):
    with pytest.raises(UserError) as error:
        parse_task(spec)
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in said), str(error.value)


def test_brackets_are_read_as_characters_and_put_as_a_person_writes_them():
    task = parse_task("brackets")
    with pytest.raises(UserError, match="not '7'"):
        parse_problem(task, ["(1+7)"])
    assert task.phrase(parse_problem(task, ["(1+(2*3))"])[0]) == "(1+(2*3)) mod 5"
    assert not isinstance(task, Recursion)
