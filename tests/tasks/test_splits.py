"""Held-out means held out: by content, up to every symmetry, for every seed, size and configuration.

`SAME` restates each task's symmetry as a key computed by another route than the code's: two problems with
the same key must never stand on two sides.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_second_group_a import SAME as SECOND_GROUP_A
from test_second_group_b import SAME as SECOND_GROUP_B

from crevasse.errors import UserError
from crevasse.tasks import BLANK, TASKS, TESTS, Problems, Solution, Splits, Task, make_splits, parse_task
from crevasse.tasks.baselines import NON_LEARNERS, non_learner_scores

Row = list[int]


def rows_of(x: np.ndarray) -> list[Row]:
    return [[int(v) for v in row if v != BLANK] for row in x]


# --- the symmetries, restated ---------------------------------------------------------------------


def same_factors(task: Task, row: Row) -> Hashable:
    return tuple(sorted(Counter(row).items()))


def wilson_pair(task: Task, row: Row) -> Hashable:
    n, p = row
    return frozenset((n, p - 1 - n)), p


def same_terms(task: Task, row: Row) -> Hashable:
    """A progression by its terms, in any order, and by those with the other sign."""
    if len(row) == 1:
        return row[0]
    a, d, n = row
    terms = [(a + i * d) % task.p for i in range(n)]
    return frozenset(tuple(sorted(v)) for v in (terms, [(task.p - t) % task.p for t in terms]))


def same_square(task: Task, row: Row) -> Hashable:
    x, c, n, p = row
    return x * x % p, c, n, p  # x² = y² exactly for y = ±x, p being prime


def same_operation(task: Task, row: Row) -> Hashable:
    a, b = row
    if task.op == "squares":
        return frozenset(Counter((a * a % task.p, b * b % task.p)).items())
    return frozenset(Counter(row).items()) if task.op in ("add", "mul") else (a, b)


def same_word(task: Task, row: Row) -> Hashable:
    return same_factors(task, row) if task.group in ("Z60", "Z120") else tuple(row)


def itself(task: Task, row: Row) -> Hashable:
    return tuple(row)


def the_start(task: Task, row: Row) -> Hashable:
    *start, _ = row
    return tuple(start)


SAME: dict[str, Callable[[Task, Row], Hashable]] = {
    "factorial": itself,
    "factorial-mod": wilson_pair,
    "rising-product": same_terms,
    "iterated-product": same_factors,
    "fibonacci": itself,
    "sum": same_terms,
    "parity": same_factors,
    "cycle": same_factors,
    "affine": itself,
    "quadratic": same_square,
    "words": same_word,
    **SECOND_GROUP_A,
    **SECOND_GROUP_B,
    "modular": same_operation,
    "addition": same_factors,
    "multiplication": same_factors,
    "copy": itself,
    "digits": itself,
    "program": itself,
    "program-mod": the_start,
}


def keys(task: Task, problems: Problems) -> set[Hashable]:
    return {SAME[task.name](task, row) for row in rows_of(problems.x)}


def size_of(task: Task, row: Row) -> int:
    """A problem's size, from the meaning of its inputs."""
    if task.name in ("addition", "multiplication"):
        return len(str(max(row)))
    if task.name == "modular":
        return 1
    if task.name == "factorial-mod":
        return row[1] if task.axis == "p" else row[0]
    if task.name == "affine":
        return row[3] if task.maps == "fixed" else (len(row) - 1) // 2
    if task.name == "quadratic":
        return row[2]
    if task.name in ("power-mod", "pointer"):
        return row[1]
    if task.name in ("catalan", "primorial"):
        return row[0]
    if task.name == "gcd":
        a, b = sorted(row)
        return 1 + (size_of(task, [b % a, a]) if b % a else 0)
    if task.name == "josephus" or (task.name == "ackermann" and task.axis == "m"):
        return row[0]
    if task.name == "ackermann":
        return row[1]
    if task.name == "program":  # what begins later counts as 0 (the default begins there)
        return row[0] if row[1] == 0 else 0
    if task.name == "brackets":
        return len(row) // 4  # a number; then one more, an operation and two brackets each
    if task.name in ("factorial", "rising-product", "fibonacci", "sum", "collatz", "tribonacci", "recurrence",
                     "program-mod"):  # fmt: skip
        return row[-1]
    return len(row)


def sides(splits: Splits) -> dict[str, Problems]:
    return {"train": splits.train, "steer": splits.steer, "validation": splits.validation, **splits.tests}


def all_keys(task: Task, splits: Splits) -> dict[str, set[Hashable]]:
    return {name: keys(task, problems) for name, problems in sides(splits).items()}


def assert_held_out_by_content(splits: Splits, found: dict[str, set[Hashable]]) -> None:
    """Nothing that is trained on (steer too) is held out, and validation is no test."""
    for held_out in ("validation", *splits.tests):
        for trained in ("train", "steer"):
            assert not found[trained] & found[held_out], f"{trained} leaks into {held_out}"
    if not splits.notes:  # factorial reads its meter on the interpolation problems, and says so
        for name in splits.tests:
            assert not found["validation"] & found[name], f"validation leaks into {name}"


def assert_sizes_are_those_of_the_split(task: Task, splits: Splits) -> None:
    wanted = {
        "train": task.train_sizes,
        "steer": task.train_sizes,
        "validation": task.gap_sizes if splits.notes else task.train_sizes,
        "random": task.train_sizes,
        "interpolation": task.gap_sizes,
        "extrapolation": task.beyond_sizes,
    }
    for name, problems in sides(splits).items():
        sizes = [size_of(task, row) for row in rows_of(problems.x)]
        assert set(sizes) <= set(wanted[name]), f"{name} has sizes {set(sizes) - set(wanted[name])}"
        assert task.size(problems.x).tolist() == sizes


def assert_answers_belong_to_their_problems(task: Task, splits: Splits) -> None:
    for problems in filter(len, sides(splits).values()):
        assert problems.solution.answers.tolist() == task.solve(problems.x).answers.tolist()
        assert task.valid(problems.x).all()
        assert len({tuple(r) for r in rows_of(problems.x)}) == len(problems)


# --- every task -----------------------------------------------------------------------------------

#: (task, a number of training problems, how many of them to steer by)
CASES = [
    *((name, None, 0) for name in TASKS if name != "pairs"),
    ("factorial", 10, 3),
    ("factorial-mod", 120, 20),
    ("factorial-mod:axis=p,p=29+31+41+43,n=1-20,gap=37,beyond=47", 90, 0),
    ("rising-product", 400, 50),
    ("rising-product:p=7,n=2-4,gap=,beyond=5", None, 0),
    ("iterated-product", 3000, 300),
    ("iterated-product:p=5,T=1-6,beyond=7", None, 0),
    ("iterated-product:p=23,T=2-4+6,gap=5,beyond=7-8", 5000, 100),
    ("fibonacci:m=13,n=2-4+6-8,gap=5,beyond=9-10", 300, 30),
    ("fibonacci:m=0,n=1-40+51-90,gap=41-50,beyond=91-99", 60, 10),
    ("sum:p=31,n=2-4+6-8,gap=5,beyond=9-10", 400, 50),
    ("sum:p=0,n=1-40+51-90,gap=41-50,beyond=91-99", 60, 10),
    ("parity", 3000, 300),
    ("parity:T=1-8,beyond=9", 200, 50),
    ("cycle", 3000, 300),
    ("affine", 3000, 300),
    ("affine:maps=fresh", 3000, 300),
    ("quadratic", 3000, 300),
    ("quadratic:p=11,c=0,n=1-3,gap=,beyond=4", None, 0),
    *((f"words:group={g}", 1000, 100) for g in ("S3", "S4", "A5", "A4xZ5", "Z60", "Z120")),
    *((f"modular:op={op}", 4000, 400) for op in ("add", "sub", "mul", "div", "squares", "s5")),
    ("modular:op=squares,p=13", None, 0),
    ("addition", 3000, 300),
    ("addition:digits=1-2,beyond=3", 5000, 0),
    ("multiplication", 3000, 300),
]


#: The same splits from two seeds each, those of every second case from other seeds.
SEEDED = [(*case, seed) for i, case in enumerate(CASES) for seed in ((0, 42) if i % 2 else (1, 2**40))]


@dataclass(frozen=True)
class Made:
    """Splits, what was asked for, and the keys of what stands on each side."""

    task: Task
    train: int | None
    steer: int
    splits: Splits
    found: dict[str, set[Hashable]]


@pytest.fixture(scope="module", params=SEEDED, ids=lambda c: f"{c[0]}|{c[1]}-{c[2]}|{c[3]}")
def made(request: pytest.FixtureRequest) -> Made:
    spec, train, steer, seed = request.param
    task = parse_task(spec)
    splits = make_splits(task, train, steer=steer, held_out=500, seed=seed)
    return Made(task, train, steer, splits, all_keys(task, splits))


def test_every_task_has_its_symmetry_restated():
    assert set(SAME) == set(TASKS) - {"pairs"}


@pytest.mark.slow
def test_held_out_problems_are_held_out_up_to_every_symmetry(made):
    assert_held_out_by_content(made.splits, made.found)


def test_no_problem_stands_in_two_test_splits_up_to_symmetry(made):
    for one, other in itertools.combinations(made.splits.tests, 2):
        assert not made.found[one] & made.found[other]


def test_steer_is_held_out_of_the_gradient_by_content(made):
    assert not made.found["train"] & made.found["steer"]


def test_each_split_has_only_its_own_sizes(made):
    assert_sizes_are_those_of_the_split(made.task, made.splits)


def test_splits_hold_different_problems_with_their_true_answers(made):
    assert_answers_belong_to_their_problems(made.task, made.splits)


def test_splits_have_exactly_the_sizes_that_were_asked_for(made):
    assert len(made.splits.steer) == made.steer
    if made.train is not None:
        assert len(made.splits.train) == made.train - made.steer
    assert len(made.splits.train) > 0
    assert all(0 < len(p) <= 500 for p in (made.splits.validation, *made.splits.tests.values()))


def test_a_task_has_the_test_splits_that_it_states(made):
    wanted = {"R": "random", "G": "interpolation", "X": "extrapolation"}
    names = {wanted[letter] for letter in made.task.splits}
    if not made.task.gap_sizes:
        names.discard("interpolation")
    if not made.task.beyond_sizes:
        names.discard("extrapolation")
    assert list(made.splits.tests) == [name for name in TESTS if name in names]


def test_a_progression_of_one_term_is_the_same_whatever_its_step():
    for spec in ("rising-product:n=1-3,gap=,beyond=4", "sum:p=31,n=1-3,gap=,beyond=4"):
        task = parse_task(spec)
        splits = make_splits(task)
        assert_held_out_by_content(splits, all_keys(task, splits))


def test_a_progression_through_nearly_all_residues_is_the_same_from_several_starts():
    task = parse_task("rising-product:p=7,n=5-6,gap=,beyond=7")
    splits = make_splits(task)
    assert_held_out_by_content(splits, all_keys(task, splits))


def test_factorial_is_metered_on_interpolation_and_says_so():
    splits = make_splits(parse_task("factorial"))
    assert splits.validation.x.tolist() == splits.tests["interpolation"].x.tolist() == [[n] for n in range(10, 15)]
    assert splits.train.x[:, 0].tolist() == [*range(1, 10), *range(15, 20)]
    assert splits.tests["extrapolation"].x[:, 0].tolist() == [20, 21, 22, 23, 24]
    assert any("interpolation" in note for note in splits.notes)
    without_gap = make_splits(parse_task("factorial:gap="))
    assert without_gap.validation.x.tolist() == without_gap.tests["extrapolation"].x.tolist()
    assert any("extrapolation" in note for note in without_gap.notes)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("train", "steer"), [(2, 0), (8, 0), (8, 5), (14, 12)])
def test_a_smaller_factorial_set_still_surrounds_the_gap(train, steer, seed):
    splits = make_splits(parse_task("factorial"), train, steer=steer, seed=seed)
    gap = splits.tests["interpolation"].x
    assert splits.train.x.min() < gap.min()
    assert splits.train.x.max() > gap.max()


def test_a_smaller_factorial_set_is_another_for_another_seed():
    chosen = {tuple(make_splits(parse_task("factorial"), 8, seed=seed).train.x[:, 0]) for seed in range(6)}
    assert len(chosen) > 1


@pytest.mark.parametrize("held_out", [1, 3])
def test_held_out_factorials_are_as_many_as_was_asked(held_out):
    splits = make_splits(parse_task("factorial"), held_out=held_out)
    assert {len(p) for p in (splits.validation, *splits.tests.values())} == {held_out}


# --- configurations that nobody thought of --------------------------------------------------------


@st.composite
def three_sizes(draw: st.DrawFn, largest: int, gap: bool = True) -> tuple[str, str, str]:
    """Training, gap and beyond sizes as a task allows them."""
    chosen = sorted(draw(st.sets(st.integers(1, largest), min_size=1, max_size=5)))
    cut = draw(st.integers(1, len(chosen)))
    head, beyond = chosen[:cut], chosen[cut:]
    held = draw(st.sets(st.sampled_from(head[1:-1]))) if gap and len(head) > 2 else set()
    train = [v for v in head if v not in held]
    return tuple("+".join(map(str, sorted(v))) for v in (train, held, beyond))


@st.composite
def specs(draw: st.DrawFn) -> str:
    name = draw(st.sampled_from(["iterated-product", "words", "modular", "affine"]))
    p = draw(st.sampled_from([3, 5, 7, 11]))
    if name == "modular":
        return f"modular:p={p},op={draw(st.sampled_from(['add', 'sub', 'mul', 'div', 'squares']))}"
    train, gap, beyond = draw(three_sizes(largest=5))
    if name == "affine":
        maps = draw(st.sampled_from(["fixed", "fresh"]))
        return f"affine:p={p},maps={maps},n={train},gap={gap},beyond={beyond}"
    first = f"p={p}" if name == "iterated-product" else f"group={draw(st.sampled_from(['S3', 'S4', 'Z60']))}"
    return f"{name}:{first},T={train},gap={gap},beyond={beyond}"


@settings(max_examples=25, deadline=None)
@given(spec=specs(), seed=st.integers(0, 2**32), share=st.one_of(st.none(), st.floats(0.01, 1)))
def test_any_configuration_is_held_out_by_content(spec, seed, share):
    task = parse_task(spec)
    listed = task.count(task.train_sizes) < 50_000
    domain = len(task.every(task.train_sizes)) if listed else task.count(task.train_sizes)
    train = None if share is None else max(1, int(share * min(500, 0.3 * domain)))
    try:
        splits = make_splits(task, train, held_out=60, seed=seed)
    except UserError:
        splits = None
    if splits is None:  # only where there is next to nothing to hold out, or to train on
        assert len({SAME[task.name](task, r) for r in rows_of(task.every(task.train_sizes))}) < 40
        return
    assert_held_out_by_content(splits, all_keys(task, splits))
    assert_sizes_are_those_of_the_split(task, splits)
    assert_answers_belong_to_their_problems(task, splits)
    assert train is None or len(splits.train) == train


# --- the same for the same arguments --------------------------------------------------------------


def equal(a: Problems, b: Problems) -> bool:
    return a.x.tolist() == b.x.tolist() and a.solution.answers.tolist() == b.solution.answers.tolist()


@pytest.mark.parametrize("labels", ["true", "random", "noisy"])
@pytest.mark.parametrize("spec", ["iterated-product", "modular", "parity", "factorial", "words"])
def test_the_same_arguments_give_the_same_splits(spec, labels):
    train = None if spec == "factorial" else 500
    one, other = (make_splits(parse_task(spec), train, steer=5, seed=3, labels=labels, noise=0.3) for _ in range(2))
    for a, b in zip(sides(one).values(), sides(other).values(), strict=True):
        assert equal(a, b)


@pytest.mark.parametrize("spec", ["iterated-product", "modular", "parity", "words", "quadratic", "addition"])
def test_another_seed_gives_other_splits(spec):
    one, other = (make_splits(parse_task(spec), 500, steer=20, seed=seed) for seed in (3, 4))
    for name, a in sides(one).items():
        assert not equal(a, sides(other)[name]), name


def test_the_test_problems_of_one_seed_are_not_the_training_problems_moved_by_one():
    """Seeding item i with seed + i makes item 1 of seed 42 equal to item 0 of seed 43 (FACTS 8)."""
    task = parse_task("iterated-product")
    one, other = (make_splits(task, 2000, seed=seed) for seed in (42, 43))
    for shift in range(3):
        moved = (one.train.x[shift:] == other.train.x[: 2000 - shift]).all(1)
        assert moved.mean() < 0.01
    domain = 12**6
    a, b = ({tuple(r) for r in s.train.x.tolist()} for s in (one, other))
    held_out = {tuple(r) for r in other.tests["random"].x.tolist()}
    assert len(a & b) <= 5 + 10 * 2000 * 2000 / domain
    assert len(a & held_out) <= 5 + 10 * 2000 * 1000 / domain


@pytest.mark.parametrize(
    ("spec", "small", "large"),
    [
        ("iterated-product", 1000, 2000),
        ("iterated-product", 1, 20_000),
        ("iterated-product:T=1-6", 10_000, 20_000),
        ("words", 1000, 20_000),
        ("modular", 100, 3000),
        ("modular", 100, None),
        ("affine", 100, 4000),
    ],
)
def test_a_training_set_grows_without_moving_what_is_held_out(spec, small, large):
    task = parse_task(spec)
    one, other = (make_splits(task, n, seed=5) for n in (small, large))
    assert other.train.x[:small].tolist() == one.train.x.tolist()
    assert equal(one.validation, other.validation)
    for name in one.tests:
        assert equal(one.tests[name], other.tests[name])


def test_nothing_is_validation_for_one_training_size_and_test_for_another():
    task = parse_task("modular:op=sub")
    made = [make_splits(task, n) for n in (1000, 8000, 9000)]
    for one, other in itertools.permutations(made, 2):
        assert not keys(task, one.validation) & keys(task, other.tests["random"])


def test_what_is_still_held_out_in_a_small_domain_was_held_out_before():
    task = parse_task("modular:op=sub")
    made = [make_splits(task, n, held_out=2000) for n in (1000, 8000, 9000, 9400)]
    for one, other in itertools.pairwise(made):
        assert keys(task, other.validation) < keys(task, one.validation)
        assert keys(task, other.tests["random"]) < keys(task, one.tests["random"])


@pytest.mark.parametrize("spec", ["iterated-product", "modular", "parity"])
def test_steer_is_taken_out_of_the_training_problems(spec):
    task = parse_task(spec)
    for steer in (1, 50, 499):
        splits = make_splits(task, 500, steer=steer)
        assert (len(splits.train), len(splits.steer)) == (500 - steer, steer)
        trained, steered = ({tuple(r) for r in rows_of(p.x)} for p in (splits.train, splits.steer))
        assert not trained & steered


@pytest.mark.parametrize("held_out", [1, 17, 400])
def test_held_out_splits_are_as_large_as_was_asked(held_out):
    splits = make_splits(parse_task("iterated-product"), 100, held_out=held_out)
    assert {len(p) for p in (splits.validation, *splits.tests.values())} == {held_out}


def test_a_listed_domain_can_be_trained_on_to_the_last_class_but_two():
    task = parse_task("modular:op=sub,p=11")
    splits = make_splits(task, 119)
    assert [len(p) for p in (splits.train, splits.validation, splits.tests["random"])] == [119, 1, 1]


@pytest.mark.parametrize("train", [7600, 8000, 9000])
def test_a_listed_domain_leaves_the_room_that_training_needs(train):
    """Classes of one and of two problems: counting classes is not counting problems."""
    splits = make_splits(parse_task("modular"), train, held_out=100)
    assert len(splits.train) == train


# --- labels ---------------------------------------------------------------------------------------


def pool(splits: Splits) -> list[tuple[int, ...]]:
    """The answers of all that trains, the gradient's and the steering ones."""
    return [tuple(a) for p in (splits.train, splits.steer) for a in p.solution.answers.tolist()]


@pytest.mark.parametrize("spec", ["iterated-product", "modular", "words:group=S3,T=4,gap=,beyond=5", "factorial"])
def test_random_labels_keep_the_inputs_and_the_answers_but_not_their_tie(spec):
    task = parse_task(spec)
    true, shuffled = (make_splits(task, steer=3, labels=labels) for labels in ("true", "random"))
    for name, a in sides(true).items():
        b = sides(shuffled)[name]
        assert a.x.tolist() == b.x.tolist()
        if name not in ("train", "steer"):
            assert Counter(map(tuple, a.solution.answers.tolist())) == Counter(map(tuple, b.solution.answers.tolist()))
    assert Counter(pool(true)) == Counter(pool(shuffled))
    assert pool(true) != pool(shuffled)


@pytest.mark.parametrize("spec", ["iterated-product", "modular", "words:group=S3,T=4,gap=,beyond=5"])
def test_random_labels_agree_with_the_truth_as_chance_would(spec):
    task = parse_task(spec)
    splits = make_splits(task, labels="random")
    for problems in (splits.train, splits.validation):
        truth = task.solve(problems.x).answers[:, 0]
        counts = np.array(list(Counter(truth.tolist()).values()))
        chance = float(((counts / len(truth)) ** 2).sum())
        deviation = np.sqrt(chance * (1 - chance) / len(truth))
        assert abs((problems.solution.answers[:, 0] == truth).mean() - chance) < 5 * deviation + 1 / len(truth)


def test_a_shuffled_answer_comes_with_its_own_trace():
    solution = make_splits(parse_task("iterated-product"), 300, labels="random").train.solution
    assert solution.states[:, -1].tolist() == solution.answers.tolist()
    running = solution.states[:, 0, 0]
    for t in range(solution.operands.shape[1]):
        running = running * solution.operands[:, t, 0] % 13
        assert running.tolist() == solution.states[:, t + 1, 0].tolist()


@pytest.mark.parametrize("noise", [0.0, 0.001, 0.25, 1 / 3, 0.9, 1.0])
@pytest.mark.parametrize(("spec", "train"), [("iterated-product", 777), ("parity", 500), ("factorial", 14)])
def test_noisy_labels_are_wrong_in_exactly_the_stated_share(spec, train, noise):
    task = parse_task(spec)
    true = make_splits(task, train)
    noisy = make_splits(task, train, labels="noisy", noise=noise)
    assert noisy.train.x.tolist() == true.train.x.tolist()
    wrong = (noisy.train.solution.answers != true.train.solution.answers).any(1).sum()
    assert wrong == round(noise * train)
    possible = set(map(tuple, true.train.solution.answers.tolist()))
    assert set(map(tuple, noisy.train.solution.answers.tolist())) <= possible
    for name in ("validation", *true.tests):
        assert equal(sides(noisy)[name], sides(true)[name])


def test_another_seed_makes_other_answers_wrong():
    task = parse_task("factorial:n=1-100,gap=,beyond=101")
    wrong = []
    for seed in (0, 1):
        p = make_splits(task, labels="noisy", noise=0.3, seed=seed).train
        wrong.append((p.solution.answers != task.solve(p.x).answers).any(1).tolist())
    assert wrong[0] != wrong[1]


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "arguments", "said"),
    [
        ("factorial", {"train": 15}, ["15", "14"]),
        ("modular:p=7", {"train": 1000}, ["1000"]),
        ("iterated-product:p=3,T=4,beyond=", {"train": 17}, ["17"]),
        ("iterated-product", {"train": 0}, ["not 0"]),
        ("iterated-product", {"train": -5}, ["-5"]),
        ("iterated-product", {"held_out": 0}, ["not 0"]),
        ("iterated-product", {"held_out": -3}, ["-3"]),
        ("iterated-product", {"train": 10, "steer": 10}, ["10"]),
        ("iterated-product", {"train": 10, "steer": 11}, ["11"]),
        ("iterated-product", {"train": 10, "steer": -1}, ["-1"]),
        ("factorial", {"steer": 14}, ["14"]),
        ("factorial", {"steer": 20}, ["20"]),
        ("modular:p=7", {"steer": 1000}, ["1000"]),
        ("iterated-product", {"train": 10, "labels": "noisy", "noise": -0.1}, ["-0.1"]),
        ("iterated-product", {"train": 10, "labels": "noisy", "noise": 1.5}, ["1.5"]),
        ("iterated-product", {"train": 10, "labels": "noisy", "noise": float("nan")}, ["nan"]),
        ("iterated-product:p=2", {}, ["validation", "1"]),
        ("factorial:gap=,beyond=", {}, ["held-out", "gap", "beyond"]),
        ("modular:p=2,op=div", {}, ["validation"]),
    ],
)
def test_splits_that_cannot_be_made_are_refused_with_the_reason(spec, arguments, said):
    task = parse_task(spec)
    with pytest.raises(UserError) as error:
        make_splits(task, **arguments)
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in said), str(error.value)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("iterated-product:T=0", ["0", "between 1 and 200"]),
        ("iterated-product:T=201", ["201", "between 1 and 200"]),
        ("iterated-product:T=", ["training size"]),
        ("factorial:n=401", ["401", "400"]),
        ("factorial:figures=-1", ["-1"]),
        ("factorial:figures=401", ["401"]),
        ("words:T=1-5,gap=3,beyond=6", ["size 3"]),
        ("words:T=1-5,gap=,beyond=5-6", ["size 5"]),
        ("words:T=1-2+5,gap=3-4,beyond=4", ["size 4"]),
        ("words:T=1-2,gap=3,beyond=", ["gap size 3"]),
        ("words:T=2-4,gap=1,beyond=", ["gap size 1"]),
        ("words:T=1-2+6,gap=,beyond=5", ["size 5", "beyond"]),
        ("iterated-product:p=12", ["12", "13"]),
        ("iterated-product:p=1", ["1", "2"]),
        ("iterated-product:p=-7", ["-7"]),
        ("iterated-product:p=10007", ["10007", "10000"]),
        ("modular:p=98", ["98", "101"]),
        ("affine:p=9", ["9", "11"]),
        ("quadratic:p=11+15", ["15", "17"]),
        ("quadratic:p=11,c=11-20", ["11"]),
        ("rising-product:p=3", ["3", "5"]),
        ("sum:p=2", ["2", "5"]),
        ("fibonacci:m=1", ["1"]),
        ("fibonacci:m=10001", ["10001"]),
        ("factorial-mod:p=5+7,n=1-7,gap=,beyond=", ["n=7", "7"]),
        ("factorial-mod:p=5+9,n=1-4,gap=,beyond=", ["9"]),
        ("factorial-mod:axis=p,p=5+11,n=1-4,gap=8,beyond=", ["8"]),
        ("addition:digits=19,beyond=", ["19", "18"]),
        ("multiplication:digits=1,beyond=10", ["10", "9"]),
    ],
)
def test_a_task_that_cannot_be_is_refused_with_the_offending_value(spec, said):
    with pytest.raises(UserError) as error:
        parse_task(spec)
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in said), str(error.value)


def test_a_huge_modulus_is_refused_before_anybody_tries_to_divide_it(monkeypatch):
    tried = []
    monkeypatch.setattr("crevasse.tasks.base.is_prime", lambda p: tried.append(p) or True)
    with pytest.raises(UserError, match="1000003"):
        parse_task("iterated-product:p=1000003")
    assert not [p for p in tried if p > 10_000]


def test_unseen_primes_need_no_training_n_below_them():
    """With axis=p every n below p is a problem; the sizes of n play no part."""
    task = parse_task("factorial-mod:axis=p,p=5+11,gap=7,beyond=13")
    assert {tuple(r) for r in make_splits(task).tests["interpolation"].x.tolist()} == {(n, 7) for n in range(1, 7)}


# --- learners that learn nothing ------------------------------------------------------------------


def by_hand(x: list[Row], answers: list[int]) -> Problems:
    return Problems(np.array(x), Solution(np.array(answers)[:, None], None, None))


def test_the_nearest_training_input_is_the_one_with_the_fewest_differing_inputs_then_the_closest():
    train = by_hand([[0, 0, 0], [9, 0, 0], [5, 5, 5], [1, 1, 9]], [10, 11, 12, 13])
    for query, answer in [
        ([0, 0, 0], 10),  # is in the table
        ([8, 0, 0], 11),  # one input differs from the first two: 9 is closer to 8 than 0 is
        ([3, 0, 0], 10),
        ([5, 5, 9], 12),  # one differs from [5, 5, 5], two from [1, 1, 9]
        ([1, 1, 1], 13),  # one differs, by 8, though [0, 0, 0] is at distance 3
        ([7, 7, 7], 12),  # all differ: the closest
    ]:
        right = non_learner_scores(train, by_hand([query], [answer]))
        wrong = non_learner_scores(train, by_hand([query], [answer + 1]))
        assert (right["nearest"], wrong["nearest"]) == (1.0, 0.0)


def test_a_shorter_problem_differs_from_a_longer_one_where_it_is_blank():
    train = by_hand([[3, 4, BLANK], [3, 4, 5]], [1, 2])
    assert non_learner_scores(train, by_hand([[3, 4]], [1]))["lookup"] == 1.0
    assert non_learner_scores(train, by_hand([[3, 4, 5]], [2]))["lookup"] == 1.0


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in TASKS if name not in ("pairs", "factorial", "fibonacci", "sum")),
        "fibonacci:m=13,n=2-8,gap=,beyond=9",
        "sum:p=31,n=2-8,gap=,beyond=9",
    ],
)
def test_a_table_of_the_training_set_knows_the_training_set_and_nothing_else(name):
    splits = make_splits(parse_task(name), 150, held_out=150)
    on_train = non_learner_scores(splits.train, splits.train)
    assert set(on_train) == set(NON_LEARNERS)
    assert on_train["lookup"] == on_train["nearest"] == 1.0
    answers = Counter(map(tuple, splits.train.solution.answers.tolist()))
    most = max(answers.values())
    assert on_train["majority"] == pytest.approx(most / 150)
    for problems in splits.tests.values():
        held_out = non_learner_scores(splits.train, problems)
        seen = Counter(map(tuple, problems.solution.answers.tolist()))
        shares = {seen[a] / len(problems) for a, count in answers.items() if count == most}
        assert any(held_out["majority"] == pytest.approx(share) for share in shares)
        assert held_out["lookup"] == held_out["majority"]  # nothing of the test is in the table


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_non_learners_agree_with_a_plain_search(data):
    width = data.draw(st.integers(1, 3))
    problem = st.tuples(st.lists(st.integers(0, 4), min_size=width, max_size=width), st.integers(0, 3))
    known = data.draw(st.lists(problem, min_size=1, max_size=8, unique_by=lambda p: tuple(p[0])))
    asked = data.draw(st.lists(problem, min_size=1, max_size=8))
    columns = [map(list, zip(*rows, strict=True)) for rows in (known, asked)]
    scores = non_learner_scores(by_hand(*columns[0]), by_hand(*columns[1]))

    def far(x: Row, y: Row) -> tuple[int, int]:
        steps = [abs(a - b) for a, b in zip(x, y, strict=True)]
        return sum(map(bool, steps)), sum(steps)

    nearest = [min(known, key=lambda k: far(k[0], q))[1] for q, _ in asked]
    assert scores["nearest"] == pytest.approx(np.mean([a == n for (_, a), n in zip(asked, nearest, strict=True)]))
    counts = Counter(a for _, a in known)
    ties = [a for a, c in counts.items() if c == max(counts.values())]
    shares = [np.mean([a == tie for _, a in asked]) for tie in ties]
    assert any(scores["majority"] == pytest.approx(share) for share in shares)
    table = {tuple(x): a for x, a in known}
    looked_up = [np.mean([a == table.get(tuple(q), tie) for q, a in asked]) for tie in ties]
    assert any(scores["lookup"] == pytest.approx(share) for share in looked_up)


def test_a_large_table_is_searched_like_a_small_one():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 30, (400, 3))
    far = np.full((6000, 3), 1_000)  # never nearest
    answers = rng.integers(0, 5, 6400)
    queries = by_hand(rng.integers(0, 30, (200, 3)).tolist(), rng.integers(0, 5, 200).tolist())
    one = non_learner_scores(by_hand(small.tolist(), answers[:400].tolist()), queries)
    other = non_learner_scores(by_hand(np.concatenate([small, far]).tolist(), answers.tolist()), queries)
    assert one["nearest"] == other["nearest"]


def test_at_most_the_stated_number_of_problems_is_looked_up():
    train = by_hand([[0], [1]], [7, 7])
    test = by_hand([[0]] * 5 + [[1]] * 5, [7] * 5 + [8] * 5)
    assert set(non_learner_scores(train, test, limit=5).values()) == {1.0}
    assert set(non_learner_scores(train, test, limit=10).values()) == {0.5}
