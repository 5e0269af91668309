"""Powers, Catalan numbers, primorials, gcd and pointer against sources that know nothing of the code."""

import functools
import itertools
import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
import pytest
import sympy
from click.testing import CliRunner

from crevasse.api import solve
from crevasse.cli import cli
from crevasse.errors import UserError
from crevasse.formats import FORMATS
from crevasse.spec import Sizes
from crevasse.tasks import BLANK, TASKS, Problems, Task, make_splits, parse_problem, parse_task

Row = list[int]
State = tuple[int, ...]


def rows_of(x: np.ndarray) -> list[Row]:
    return [[int(v) for v in row if v != BLANK] for row in x]


@functools.cache
def problems(spec: str) -> np.ndarray:
    """The whole domain where it is small, else some of it."""
    task = parse_task(spec)
    if task.count(Sizes(task.sizes)) <= 20_000:
        return task.every(Sizes(task.sizes))
    return task.sample(np.random.default_rng(7), 1500, Sizes(task.sizes))


# --- the tasks, in other words --------------------------------------------------------------------


@dataclass(frozen=True)
class Oracle:
    """The running state after k steps, what step k takes, how many steps, and the answer."""

    state: Callable[[Row, int], State]
    operand: Callable[[Row, int], State]
    steps: Callable[[Row], int]
    answer: Callable[[Row], int]


catalan, primorial = functools.cache(sympy.catalan), functools.cache(sympy.primorial)


@functools.cache
def remainders(a: int, b: int) -> tuple[int, ...]:
    """All that Euclid writes, from the continued fraction of the larger by the smaller number."""
    quotients = list(sympy.continued_fraction(sympy.Rational(max(a, b), min(a, b))))
    written = [0, math.gcd(a, b)]
    for quotient in reversed(quotients):
        written.append(quotient * written[-1] + written[-2])
    return tuple(reversed(written))


def moved(row: Row, k: int) -> int:
    """f applied k times, by a power of its matrix."""
    x, _, *f = row
    matrix = np.zeros((len(f), len(f)), np.int64)
    matrix[f, range(len(f))] = 1
    return int(np.linalg.matrix_power(matrix, k)[:, x].argmax())


ORACLES = {
    "power-mod": Oracle(
        lambda r, k: (r[0] ** (k + 1) % r[2],), lambda r, k: (r[0],), lambda r: r[1] - 1, lambda r: r[0] ** r[1] % r[2]
    ),
    "catalan": Oracle(
        lambda r, k: (int(catalan(k)) % r[1],),
        lambda r, k: (k,),
        lambda r: r[0],
        lambda r: math.comb(2 * r[0], r[0]) // (r[0] + 1) % r[1],
    ),
    "primorial": Oracle(
        lambda r, k: (int(primorial(k + 1)) % r[1],),
        lambda r, k: (int(sympy.prime(k + 1)),),
        lambda r: r[0] - 1,
        lambda r: math.prod(sympy.primerange(sympy.prime(r[0]) + 1)) % r[1],
    ),
    "gcd": Oracle(
        lambda r, k: remainders(*r)[k : k + 2],
        lambda r, k: (1,),
        lambda r: len(remainders(*r)) - 2,
        lambda r: math.gcd(*r),
    ),
    "pointer": Oracle(
        lambda r, k: (moved(r, k),), lambda r, k: (1,), lambda r: r[1], lambda r: functools.reduce(
            lambda at, _: r[2 + at], range(r[1]), r[0]
        ),
    ),
}  # fmt: skip
#: Each with its whole domain, but for pointer's default.
SPECS = [
    "power-mod",
    "power-mod:p=2+3+7,n=1-3+5,gap=4,beyond=6",
    "catalan",
    "catalan:p=3+23,n=1-3+5-9,gap=4,beyond=10-11",
    "primorial",
    "primorial:p=7+101,n=1-20,gap=,beyond=21-25",
    "gcd:m=70",
    "gcd:m=30,steps=1-2+4,beyond=5-6",
    "pointer",
    "pointer:m=4,n=1-3,beyond=5-7",
]


def oracle_of(task: Task) -> Oracle:
    return ORACLES[task.name]


@pytest.mark.parametrize("spec", SPECS)
def test_answers_traces_and_operands_agree_with_an_independent_source(spec):
    task, x = parse_task(spec), problems(spec)
    oracle, solution = oracle_of(task), task.solve(x)
    assert solution.answers[:, 0].tolist() == [oracle.answer(r) for r in rows_of(x)]
    for i in range(0, len(x), max(1, len(x) // 400)):
        row = rows_of(x[i : i + 1])[0]
        steps = oracle.steps(row)
        states = [tuple(s) for s in solution.states[i].tolist()]
        operands = [tuple(o) for o in solution.operands[i].tolist()]
        assert states[: steps + 1] == [oracle.state(row, k) for k in range(steps + 1)]
        assert operands[:steps] == [oracle.operand(row, k) for k in range(1, steps + 1)]
        assert all(set(blank) == {BLANK} for blank in (*states[steps + 1 :], *operands[steps:]))


@pytest.mark.parametrize("spec", SPECS)
def test_values_fit_the_alphabet_and_nothing_is_mistaken_for_a_blank(spec):
    task, x = parse_task(spec), problems(spec)
    solution = task.solve(x)
    assert max(x.max(), solution.states.max(), solution.operands.max()) < task.symbols
    assert x.min() >= 0 and solution.answers.min() >= 0
    assert len(np.unique(solution.answers)) <= task.answer_count
    assert task.solve(x[:0]).answers.shape == (0, 1)


DOMAINS = {
    "power-mod:p=3+7,n=1-2,gap=,beyond=": {(a, n, p) for p in (3, 7) for a in range(1, p) for n in (1, 2)},
    "power-mod:p=3+7,n=3-5,gap=,beyond=": {(a, n, 7) for a in range(1, 7) for n in (3, 4, 5)},
    "catalan:p=7+11,n=2-5,gap=,beyond=": {(n, p) for p in (7, 11) for n in range(2, 6) if 2 * n < p},
    "primorial:p=7+11,n=1-4,gap=,beyond=": {(n, p) for p in (7, 11) for n in range(1, 5) if sympy.prime(n) < p},
    "gcd:m=20,steps=2-3,beyond=": {
        (a, b) for a, b in itertools.product(range(1, 21), repeat=2) if len(remainders(a, b)) - 2 in (2, 3)
    },
    "pointer:m=2,n=1+3,beyond=": set(itertools.product((0, 1), (1, 3), (0, 1), (0, 1))),
}


@pytest.mark.parametrize("spec", DOMAINS)
def test_the_domain_is_listed_and_sampled_whole(spec):
    task = parse_task(spec)
    x = task.every(task.train_sizes)
    drawn = task.sample(np.random.default_rng(0), 40 * len(DOMAINS[spec]), task.train_sizes)
    assert {tuple(r) for r in x.tolist()} == {tuple(r) for r in drawn.tolist()} == DOMAINS[spec]
    assert len(x) == len(DOMAINS[spec]) <= task.count(task.train_sizes)
    assert task.valid(x).all()


def test_pairs_are_drawn_with_every_number_of_divisions_equally_often():
    task = parse_task("gcd")
    size = task.size(task.sample(np.random.default_rng(0), 7000, Sizes((1, 4, 7))))
    assert all(abs((size == s).sum() - 7000 / 3) < 5 * np.sqrt(7000 * 2 / 9) for s in (1, 4, 7))


@pytest.mark.parametrize("m", [2, 3, 54, 55, 600])
def test_the_largest_number_of_divisions_is_the_largest_that_there_is(m):
    x = np.array([[a, b] for b in range(max(1, m // 2), m + 1) for a in (m, m - 1, round(b * 1.618)) if b <= a <= m])
    most = int(parse_task("gcd").size(x).max())
    assert parse_task(f"gcd:m={m},steps={most},beyond=").sizes == (most,)
    with pytest.raises(UserError, match=f"between 1 and {most}"):
        parse_task(f"gcd:m={m},steps=1,beyond={most + 1}")


# --- symmetries and splits ------------------------------------------------------------------------


def same_power(task: Task, row: Row) -> Hashable:
    """The four of ±a and ±1/a; the exponents up to the first power that is ±1, and up to sign."""
    a, n, p = row
    turn = next(k for k in range(1, p) if a**k % p in (1, p - 1))
    inverse = pow(a, -1, p)
    return frozenset((a, p - a, inverse, p - inverse)), frozenset((n % turn, -n % turn)), p


def same_catalan(task: Task, row: Row) -> Hashable:
    n, p = row
    return frozenset((n, p // 2 - n)), p


def same_walk(task: Task, row: Row) -> Hashable:
    """The arrows that are walked on, the start and the end."""
    walk = [moved(row, k) for k in range(row[1] + 1)]
    return frozenset(itertools.pairwise(walk)), walk[0], walk[-1]


SAME: dict[str, Callable[[Task, Row], Hashable]] = {
    "power-mod": same_power,
    "catalan": same_catalan,
    "primorial": lambda task, row: tuple(row),
    "gcd": lambda task, row: frozenset(row),
    "pointer": same_walk,
}


@pytest.mark.parametrize("spec", SPECS)
def test_classes_are_those_of_the_symmetry_restated(spec):
    """As many as there are, no fewer: nothing is held out together that is not the same."""
    task, x = parse_task(spec), problems(spec)[:6000]
    pairs = {(SAME[task.name](task, r), tuple(c)) for r, c in zip(rows_of(x), task.canonical(x).tolist(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def up_to_symmetry(name: str, row: Row, answer: int) -> Hashable:
    """What problems of one class have in common in their answers."""
    if name == "power-mod":
        inverse = pow(answer, -1, row[2])
        return frozenset((answer, row[2] - answer, inverse, row[2] - inverse))
    if name == "catalan":
        return answer * (row[0] + 1) * pow(-4, -row[0], row[1]) % row[1]
    return answer


@pytest.mark.parametrize("spec", SPECS)
def test_problems_of_one_class_have_the_same_answer_as_far_as_is_stated(spec):
    task, x = parse_task(spec), problems(spec)
    known: dict[tuple[int, ...], Hashable] = {}
    keys, answers = map(tuple, task.canonical(x).tolist()), task.solve(x).answers[:, 0].tolist()
    for row, key, answer in zip(rows_of(x), keys, answers, strict=True):
        common = up_to_symmetry(task.name, row, answer)
        assert known.setdefault(key, common) == common, row
    if task.name != "primorial":
        assert len(known) < len(x), "no two problems were the same"


@pytest.mark.parametrize(
    ("spec", "train"),
    [
        ("power-mod", 1000),
        ("power-mod:p=41+43,n=1-30,gap=,beyond=31-40", None),
        ("catalan", None),
        ("primorial", 300),
        ("gcd", 1000),
        ("gcd:m=30,steps=1-3,beyond=4", None),
        ("pointer", 800),
        ("pointer:m=4,n=1-3,beyond=4-5", None),
    ],
)
def test_no_symmetry_class_stands_on_two_sides(spec, train):
    task = parse_task(spec)
    splits = make_splits(task, train, steer=20 if train else 0, held_out=200, seed=3)
    sides = [splits.train, splits.steer, splits.validation, *splits.tests.values()]
    wanted = {"R": "random", "G": "interpolation", "X": "extrapolation"}
    assert set(splits.tests) <= {wanted[letter] for letter in task.splits}
    assert len(splits.train) > 0 and all(len(p) > 0 for p in splits.tests.values())
    keys = [{SAME[task.name](task, r) for r in rows_of(p.x)} for p in sides]
    for one, other in itertools.combinations(keys, 2):
        assert not one & other


@pytest.mark.parametrize("spec", SPECS)
def test_a_size_is_what_it_is_said_to_be(spec):
    task, x = parse_task(spec), problems(spec)
    said = {"power-mod": lambda r: r[1], "pointer": lambda r: r[1], "gcd": ORACLES["gcd"].steps}
    assert task.size(x).tolist() == [said.get(task.name, lambda r: r[0])(r) for r in rows_of(x)]


# --- documents, tool and rule score ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "words", "trace", "tool"),
    [
        ("power-mod", "a=3 n=4 p=7", "3 4 7 = 2 6 4 # 4 <end>", "3,4,7=3*3→2;2*3→6;6*3→4;#4<end>"),
        ("catalan", "n=4 p=11", "4 11 = 1 2 5 3 # 3 <end>", "4,11=1@1→1;1@2→2;2@3→5;5@4→3;#3<end>"),
        ("primorial", "n=3 p=11", "3 11 = 6 8 # 8 <end>", "3,11=2*3→6;6*5→8;#8<end>"),
        ("gcd", "a=18 b=48", "18 48 = 18 12 12 6 6 0 # 6 <end>", "18,48=48,18%→18,12;18,12%→12,6;12,6%→6,0;#6<end>"),
        ("pointer:m=4", "x=0 n=3 f=1,2,3,0", "0 3 1 2 3 0 = 1 2 3 # 3 <end>", "0,3,1,2,3,0=0@→1;1@→2;2@→3;#3<end>"),
    ],
)
def test_documents_spell_out_the_trace_and_the_calls(spec, words, trace, tool):
    task = parse_task(spec)
    x = parse_problem(task, words.split())
    answer = task.solve(x).answers[0, 0]
    direct = f"{tool.partition('=')[0]}={answer}<end>"
    for name, document in (("direct:notation=digits", direct), ("trace", trace), ("tool:notation=digits", tool)):
        form = FORMATS.parse(name)
        script = form.script(task)
        encoded = form.encode(script, Problems(x, task.solve(x)))
        assert script.text(encoded.tokens[0, : encoded.lengths[0]]) == document


@pytest.mark.parametrize("form", ["direct", "trace", "tool"])
@pytest.mark.parametrize("name", ORACLES)
def test_all_splits_encode_in_residues(name, form):
    task, f = parse_task(name), FORMATS.parse(form)
    splits, script = make_splits(task, 100, held_out=30), f.script(task)
    for side in (splits.train, splits.validation, *splits.tests.values()):
        encoded = f.encode(script, side)
        assert script.residues and encoded.tokens.max() < script.size
        answers = np.where(encoded.answers[:, 0] == BLANK, BLANK, encoded.answers[:, 0])
        assert [script.vocabulary[t] for t in answers] == [str(a) for a in side.solution.answers[:, 0]]


@pytest.mark.parametrize("spec", SPECS)
def test_the_tool_does_one_step_and_refuses_what_is_no_call(spec):
    task, x = parse_task(spec), problems(spec)
    oracle, (_, right) = oracle_of(task), task.call_widths
    for i in range(0, len(x), max(1, len(x) // 40)):
        row = rows_of(x[i : i + 1])[0]
        for k in range(1, oracle.steps(row) + 1):
            call = [*oracle.state(row, k - 1), *oracle.operand(row, k)[:right]]
            assert tuple(task.call(call, x[i])) == oracle.state(row, k)
            assert task.call(call[1:], x[i]) is task.call([*call, 1], x[i]) is None


@pytest.mark.parametrize(
    ("name", "words", "arguments"),
    [
        ("catalan", "n=2 p=11", [5, 10]),  # 10 + 1 is 0 modulo 11
        ("gcd", "a=9 b=6", [3, 0]),
        ("pointer:m=3", "x=0 n=1 f=0,1,2", [3]),
        ("pointer:m=3", "x=0 n=1 f=0,1,2", [10**30]),
    ],
)
def test_the_tool_has_no_answer_where_there_is_none(name, words, arguments):
    task = parse_task(name)
    assert task.call(arguments, parse_problem(task, words.split())[0]) is None


def linked(spec: str) -> tuple:
    task = parse_task(spec)
    links = task.consecutive(problems(spec))
    assert links is not None and len(links.problems[0]) > 0
    return task, links


@pytest.mark.parametrize("spec", SPECS)
def test_true_answers_obey_the_recursion_and_tables_and_constants_do_not(spec):
    task, links = linked(spec)
    assert task.obeys(links, [task.solve(p).answers for p in links.problems]).all()
    possible = np.unique(task.solve(links.problems[-1]).answers)
    rng = np.random.default_rng(5)
    table: dict[tuple[int, ...], int] = {}
    looked_up = [
        np.array([[table.setdefault(tuple(r), int(rng.choice(possible)))] for r in p.tolist()]) for p in links.problems
    ]
    assert task.obeys(links, looked_up).mean() < 1 / len(possible) + 0.15
    for answer in possible:
        assert task.obeys(links, [np.full((len(p), 1), answer) for p in links.problems]).mean() < 0.5


@pytest.mark.parametrize("spec", SPECS)
def test_linked_problems_stand_in_the_stated_relation_and_in_the_domain(spec):
    task, links = linked(spec)
    for p in links.problems:
        assert task.valid(p).all() and np.isin(task.size(p), task.sizes).all()
    if task.name == "gcd":
        rest, here, other_rest, there = (p.tolist() for p in links.problems)
        assert [[b, a % b] for a, b in here] == rest and [[b, a % b] for a, b in there] == other_rest
        assert np.max(links.problems) <= task.m
    else:
        earlier, later = links.problems
        at = [v.name for v in task.inputs].index("n")
        assert ((later - earlier) == np.eye(earlier.shape[1], dtype=int)[at]).all()


@pytest.mark.parametrize("name", ["power-mod", "catalan", "primorial", "gcd"])
def test_a_learner_that_is_wrong_by_one_factor_has_the_rule(name):
    task, links = linked(name)
    doubled = [task.solve(p).answers * 2 for p in links.problems]
    if name != "gcd":
        doubled = [d % p[:, -1:] for d, p in zip(doubled, links.problems, strict=True)]
    assert task.obeys(links, doubled).all()


def test_an_output_that_is_no_point_obeys_no_map():
    task, links = linked("pointer")
    outside = [np.full((len(p), 1), 99, dtype=object) for p in links.problems]
    assert not task.obeys(links, outside).any()


# --- as a person types them -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "words", "answer", "trace"),
    [
        ("power-mod", "a=3 n=5 p=7", 5, [3, 2, 6, 4, 5]),
        ("catalan", "n=5 p=97", 42, [1, 1, 2, 5, 14, 42]),
        ("primorial", "n=5 p=197", 2310 % 197, [2, 6, 30, 13, 2310 % 197]),
        ("gcd", "a=1071 b=462", 21, [[1071, 462], [462, 147], [147, 21], [21, 0]]),
        ("gcd", "a=12 b=98765", 1, [[98765, 12], [12, 5], [5, 2], [2, 1], [1, 0]]),
        ("pointer", "m=4 x=0 n=7 f=1,2,3,1", 1, [0, 1, 2, 3, 1, 2, 3, 1]),
    ],
)
def test_solve_writes_answer_and_trace(task, words, answer, trace):
    solved = solve(task, words.split())
    assert (solved["answer"], solved["trace"]) == (answer, trace)
    run = CliRunner().invoke(cli, ["solve", task, *words.split()])
    assert (run.exit_code, run.output.strip()) == (0, str(answer))


def test_the_list_of_tasks_and_each_tasks_options_are_shown():
    listed = CliRunner().invoke(cli, ["tasks"]).output
    for name in ORACLES:
        assert f"\n{name} " in listed
        options = CliRunner().invoke(cli, ["tasks", name])
        assert options.exit_code == 0 and "training" in options.output


def test_every_fact_is_stated_and_controls_exist():
    for name in ORACLES:
        facts = TASKS.cls(name).facts
        assert facts.recursive and facts.closed_form and facts.depth
        assert facts.control in TASKS
    assert TASKS.cls("factorial-mod").facts.control == "power-mod"


@pytest.mark.parametrize(
    ("spec", "words", "said"),
    [
        ("power-mod", "a=7 n=2 p=7", "1 ≤ n < p"),
        ("power-mod", "a=3 n=7 p=7", "1 ≤ n < p"),
        ("catalan", "n=4 p=7", "2n < p"),
        ("primorial", "n=4 p=7", "below p"),
        ("gcd", "a=0 b=3", "a=0 is not allowed"),
        ("pointer:m=3", "x=0 n=2 f=1,2", "its m values"),
        ("pointer:m=3", "x=0 n=2 f=1,2,3", "f=3 is not allowed"),
    ],
)
def test_what_is_no_problem_is_refused_in_one_line(spec, words, said):
    with pytest.raises(UserError, match=said) as error:
        parse_problem(parse_task(spec), words.split())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("power-mod:p=9", "prime"),
        ("power-mod:p=", "at least one p"),
        ("power-mod:p=11,n=1-11,gap=,beyond=", "at most 10 with p ≤ 11: n=11"),
        ("catalan:p=11,n=1-6,gap=,beyond=", "at most 5 with p ≤ 11: n=6"),
        ("primorial:p=11,n=1-5,gap=,beyond=", "at most 4 with p ≤ 11: n=5"),
        ("gcd:m=1", "between 2 and 600, not 1"),
        ("gcd:m=601", "between 2 and 600, not 601"),
        ("pointer:m=1", "between 2 and 200, not 1"),
        ("pointer:n=1-4,beyond=4", "two of"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(spec, said):
    with pytest.raises(UserError, match=said) as error:
        parse_task(spec)
    assert "\n" not in str(error.value)
