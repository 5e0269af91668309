"""Splits in which held-out means held out: by content, up to every symmetry that the task states.

Who sees what: *train* gives gradients; *steer* is part of the training budget, kept out of the gradient but
visible to the rule; *validation* is for the meter and for tuning; the *test* splits (random, interpolation,
extrapolation) are opened once, at the end.

The side of a problem is decided by a hash of its symmetry class, so that the held-out set stays the same
while the training set grows, and a training set of 1000 is the first half of one of 2000.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from crevasse.errors import UserError
from crevasse.spec import Sizes, describe, require
from crevasse.tasks.base import BLANK, LISTED, Ints, Solution, Task

#: The test splits, in the order in which they are shown.
TESTS = ("random", "interpolation", "extrapolation")
#: Shares of the symmetry classes that are held out for validation and for the random test split.
HELD_OUT_SHARE = 0.1

Labels = Literal["true", "random", "noisy"]


@dataclass(frozen=True)
class Problems:
    """Some problems with their answers. Rows belong together."""

    x: Ints  # (problem, column)
    solution: Solution

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: NDArray[np.int64]) -> "Problems":
        """The problems at the given rows, in that order."""
        return Problems(self.x[rows], _take(self.solution, rows))


@dataclass(frozen=True)
class Splits:
    """All that a trial trains on and is judged by."""

    train: Problems
    steer: Problems
    validation: Problems
    tests: dict[str, Problems]  # by the names in TESTS, those that the task has
    notes: tuple[str, ...] = field(default=())  # what a reader of the result has to know


def make_splits(
    task: Task,
    train: int | None = None,
    *,
    steer: int = 0,
    held_out: int = 1000,
    seed: int = 0,
    labels: Labels = "true",
    noise: float = 0.0,
) -> Splits:
    """Train, steer, validation and test problems of a task, the same for the same arguments.

    train: number of training problems, `steer` of which are kept out of the gradient; None takes all there
    are. held_out: at most so many problems in each other split. noise: share of wrong training answers.
    Raises UserError where the domain is too small for what is asked, or a held-out split would be empty.
    """
    require(train is None or train > 0, f"the training set must have at least one problem, not {train}")
    require(held_out > 0, f"held-out splits must have at least one problem, not {held_out}")
    require(0 <= steer < (train or 10**12), f"steer must be at least 0 and below train ({train}), not {steer}")
    require(0 <= noise <= 1, f"noise must lie between 0 and 1, not {noise}")
    declared = getattr(task, "declared", None)
    if declared is not None:
        parts, notes = _declared(task, declared, train, held_out, seed)
    elif "R" in task.splits:
        parts, notes = _by_class(task, train, held_out, seed)
    else:
        parts, notes = _by_size(task, train)
    pool = parts.pop("train")
    rng = np.random.default_rng([_number(f"labels {task.name}"), seed])
    solved = {name: Problems(x, task.solve(x)) for name, x in {"pool": pool, **parts}.items()}
    if labels == "random":
        solved = {name: _shuffled(p, rng) for name, p in solved.items()}
    elif labels == "noisy":
        solved["pool"] = _noisy(solved["pool"], noise, rng)
    rows = np.arange(len(pool))
    return Splits(
        train=solved["pool"].take(rows[: len(pool) - steer]),
        steer=solved["pool"].take(rows[len(pool) - steer :]),
        validation=solved["validation"],
        tests={name: solved[name] for name in TESTS if name in solved},
        notes=tuple(notes),
    )


def classes(task: Task, x: Ints) -> NDArray[np.uint64]:
    """A 64-bit number for each problem's symmetry class. (problem,)"""
    key = np.ascontiguousarray(task.canonical(x).astype(np.int64)).view(np.uint64)
    out = np.full(len(key), 0x9E3779B97F4A7C15, np.uint64)
    blank = np.array(BLANK, np.int64).view(np.uint64)
    for column in key.T:  # BLANK columns are passed over: the same problem in a wider array is the same
        out = np.where(column == blank, out, _mix(out ^ _mix(column + np.uint64(0x632BE59BD9B4E019))))
    # A canonical row may have its blanks anywhere (sorted rows have them in front), so nothing else is needed.
    return out


def _mix(v: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit depends on every bit."""
    v = (v ^ (v >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    v = (v ^ (v >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return v ^ (v >> np.uint64(31))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _by_class(task: Task, train: int | None, held_out: int, seed: int) -> tuple[dict[str, Ints], list[str]]:
    """Random held-out classes at the training sizes, and whole sizes held out where the task names some."""
    rng = np.random.default_rng([_number(f"problems {describe(task)}"), seed])
    parts: dict[str, Ints] = {}
    taken = np.zeros(0, np.uint64)
    for name, sizes in (("interpolation", task.gap_sizes), ("extrapolation", task.beyond_sizes)):
        if sizes:
            parts[name] = _draw(task, sizes, held_out, rng)
            taken = np.union1d(taken, classes(task, parts[name]))
    salt = np.uint64(_number(f"sides {seed}"))
    total = task.count(task.train_sizes)
    listed = total <= LISTED
    if listed:
        pool = task.every(task.train_sizes)
        rng.shuffle(pool)
    else:
        pool = _distinct(task, task.sample(rng, _enough(train, held_out), task.train_sizes))
    while True:
        pool = pool[~np.isin(classes(task, pool), taken)] if len(taken) else pool
        key = classes(task, pool)
        side = _sides(_mix(key ^ salt), train if listed else None, len(pool))
        if listed or (side == 2).sum() >= (train or 2000):
            break
        more = task.sample(rng, 2 * len(pool), task.train_sizes)
        grown = _distinct(task, np.concatenate([pool, more]))
        if len(grown) < 1.02 * len(pool):
            break
        pool = grown
    found = int((side == 2).sum())
    if train is None:
        train = found if listed else min(2000, found)
    if train > found:
        raise UserError(
            f"a train set of {train} is too large: {task.name} has {found} problems to train on here "
            f"(of {len(pool)} different ones, with a tenth each held out for validation and test)"
        )
    parts["train"] = pool[side == 2][:train]
    for name, number in (("validation", 0), ("random", 1)):
        parts[name] = pool[side == number][:held_out]
        if not len(parts[name]):
            raise UserError(f"the held-out split {name!r} of {task.name} would be empty: {len(pool)} problems in all")
    return parts, []


def _enough(train: int | None, held_out: int) -> int:
    """Candidates to draw, so that each side has what it needs; the loop above draws more if not."""
    return max(int(1.4 * (train or 2000)), int(1.3 * held_out / HELD_OUT_SHARE))


def _sides(key: NDArray[np.uint64], train: int | None, rows: int) -> NDArray[np.int64]:
    """0 validation, 1 test, 2 train for each row, the same for every row of a class. (problem,)"""
    share = HELD_OUT_SHARE
    if train is not None and rows:  # a listed domain: leave the room that the training set needs
        share = min(share, max(0.0, (1 - train / rows) / 2))
    groups, inverse = np.unique(key, return_inverse=True)
    if train is not None or len(groups) < 2000:  # few classes: cut by rank, so that none goes empty by chance
        count = max(1, round(share * len(groups))) if len(groups) > 2 else 0
        rank = np.where(np.arange(len(groups)) < count, 0, np.where(np.arange(len(groups)) < 2 * count, 1, 2))
        return np.asarray(rank[inverse])
    u = key / 2.0**64
    return np.where(u < share, 0, np.where(u < 2 * share, 1, 2))


def _draw(task: Task, sizes: Sizes, count: int, rng: np.random.Generator) -> Ints:
    """At most `count` different problems of these sizes, in random order."""
    if task.count(sizes) <= LISTED:
        x = task.every(sizes)
        rng.shuffle(x)
    else:
        x = _distinct(task, task.sample(rng, 2 * count, sizes))
    return x[:count]


def _distinct(task: Task, x: Ints) -> Ints:
    """Each problem once, in the order of first appearance."""
    _, first = np.unique(x, axis=0, return_index=True) if len(x) < 2 else _unique_rows(x)
    return x[np.sort(first)]


def _unique_rows(x: Ints) -> tuple[None, NDArray[np.int64]]:
    """Like np.unique(axis=0), by a 128-bit hash of the rows: much faster for wide integer rows."""
    column = np.ascontiguousarray(x.astype(np.int64)).view(np.uint64)
    a, b = np.zeros(len(x), np.uint64), np.full(len(x), 7, np.uint64)
    for c in column.T:
        a, b = _mix(a ^ _mix(c + np.uint64(1))), _mix((b + np.uint64(0x9E3779B97F4A7C15)) ^ c)
    both = np.empty(len(x), dtype=[("a", np.uint64), ("b", np.uint64)])
    both["a"], both["b"] = a, b
    return None, np.unique(both, return_index=True)[1]


def _by_size(task: Task, train: int | None) -> tuple[dict[str, Ints], list[str]]:
    """Whole sizes held out, where the size is the only input (factorial)."""
    parts = {"train": task.every(task.train_sizes)}
    for name, sizes in (("interpolation", task.gap_sizes), ("extrapolation", task.beyond_sizes)):
        if sizes:
            parts[name] = task.every(sizes)
    if len(parts) == 1:
        raise UserError(f"the held-out split of {task.name} is empty: name sizes in gap or beyond")
    if train is not None and train > len(parts["train"]):
        raise UserError(f"a train set of {train} is larger than the domain: {len(parts['train'])} problems")
    parts["train"] = parts["train"][:train]
    name = "interpolation" if "interpolation" in parts else "extrapolation"
    parts["validation"] = parts[name]
    return parts, [
        f"the meter's held-out loss is read on the {name} problems themselves, as there are no others; "
        "nothing but the meter sees them before the end"
    ]


def _declared(
    task: Task, declared: NDArray[np.int64], train: int | None, held_out: int, seed: int
) -> tuple[dict[str, Ints], list[str]]:
    """The splits that a file of pairs names itself: 0 validation, 2 train, 3 + i the test split i."""
    rows = np.arange(len(declared))[:, None]
    notes: list[str] = []
    pool = rows[declared == 2]
    if train is not None and train > len(pool):
        raise UserError(f"a train set of {train} is larger than what the file calls train: {len(pool)} problems")
    parts = {"train": pool[:train]}
    for i, name in enumerate(TESTS):
        if (declared == 3 + i).any():
            parts[name] = rows[declared == 3 + i]
    parts["validation"] = rows[declared == 0][:held_out]
    tests = [name for name in TESTS if name in parts]
    if not len(pool) or not tests:
        raise UserError("the file's split column must name both train and at least one test split")
    if not len(parts["validation"]):
        share = max(1, min(held_out, len(parts["train"]) // 10))
        if len(parts["train"]) < 20:
            raise UserError("the file names no validation split and has too few training problems to take one from")
        parts["validation"], parts["train"] = parts["train"][:share], parts["train"][share:]
        notes.append(f"no validation split is named: {share} training problems are held out for the meter")
    return parts, notes


def _take(solution: Solution, rows: NDArray[np.int64]) -> Solution:
    return Solution(
        solution.answers[rows],
        None if solution.states is None else solution.states[rows],
        None if solution.operands is None else solution.operands[rows],
    )


def _shuffled(problems: Problems, rng: np.random.Generator) -> Problems:
    """The same inputs with each other's answers: nothing to find, so any progress is memory."""
    return Problems(problems.x, _take(problems.solution, rng.permutation(len(problems))))


def _noisy(problems: Problems, noise: float, rng: np.random.Generator) -> Problems:
    """The stated share of problems, exactly, gets the (different) answer of another problem."""
    n = len(problems)
    chosen = rng.permutation(n)[: round(noise * n)]
    _, number = np.unique(problems.solution.answers.astype(str), axis=0, return_inverse=True)
    number = number.reshape(-1)
    if len(chosen) and number.max() == 0:
        raise UserError("noisy labels need a task with at least two different answers")
    donor = np.arange(n)
    for row in chosen:
        while number[donor[row]] == number[row]:
            donor[row] = rng.integers(n)
    return Problems(problems.x, _take(problems.solution, donor))
