"""Splits in which held-out means held out: by content, up to every symmetry that the task states.

Who sees what: *train* gives gradients; *steer* is part of the training budget, kept out of the gradient but
visible to the rule; *validation* is for the meter and for tuning; the *test* splits (random, interpolation,
extrapolation) are opened once, at the end.

The side of a problem is decided by a hash of its symmetry class; steer, too, shares no class with the
gradient. What is held out stays the same while the training set grows, and a training set of 1000 (without
steer) is the first half of one of 2000, until a small domain has no room left: then held-out sets shrink.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crevasse.errors import UserError, unknown
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

    train: number of training problems, `steer` of which are kept out of the gradient; None takes all that are
    not held out, or 2000 of a domain too large to list. held_out: at most so many problems in each other split.
    noise: share of wrong training answers. Raises UserError where the domain is too small for what is asked, or
    a held-out split would be empty.
    """
    require(train is None or train > 0, f"the training set must have at least one problem, not {train}")
    if labels not in get_args(Labels):
        raise unknown("kind of labels", labels, get_args(Labels))
    require(held_out > 0, f"held-out splits must have at least one problem, not {held_out}")
    require(0 <= steer < (train or 10**12), f"steer must be at least 0 and below train ({train}), not {steer}")
    require(0 <= noise <= 1, f"noise must lie between 0 and 1, not {noise}")
    declared = getattr(task, "declared", None)
    if declared is not None:
        parts, notes = _declared(task, declared, train, steer, held_out, seed)
    elif "R" in task.splits:
        parts, notes = _by_class(task, train, steer, held_out, seed)
    else:
        parts, notes = _by_size(task, train, steer, held_out, seed)
    pool = np.concatenate([parts.pop("train"), parts.pop("steer")])
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
    return _hashed(task.canonical(x))


def _hashed(rows: Ints) -> NDArray[np.uint64]:
    """A 64-bit number for each row, the same in a wider array: BLANK is passed over, wherever it stands."""
    key = np.ascontiguousarray(rows.astype(np.int64)).view(np.uint64)
    out = np.full(len(key), 0x9E3779B97F4A7C15, np.uint64)
    blank = np.array(BLANK, np.int64).view(np.uint64)
    for column in key.T:
        out = np.where(column == blank, out, _mix(out ^ _mix(column + np.uint64(0x632BE59BD9B4E019))))
    return out


def _mix(v: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every bit depends on every bit."""
    v = (v ^ (v >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    v = (v ^ (v >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return v ^ (v >> np.uint64(31))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _by_class(task: Task, train: int | None, steer: int, held_out: int, seed: int) -> tuple[dict[str, Ints], list[str]]:
    """Random held-out classes at the training sizes, and whole sizes held out where the task names some."""
    rng = np.random.default_rng([_number(f"problems {describe(task)}"), seed])
    parts: dict[str, Ints] = {}
    taken, salt = np.zeros(0, np.uint64), np.uint64(_number(f"sides {seed}"))
    for name, sizes in (("interpolation", task.gap_sizes), ("extrapolation", task.beyond_sizes)):
        if sizes:
            parts[name] = _fresh(task, _draw(task, sizes, 2 * held_out, rng), taken, salt)[0][:held_out]
            _not_empty(task, name, parts[name], "every one of its problems equals one in another test split")
            taken = np.union1d(taken, classes(task, parts[name]))
    listed = task.count(task.train_sizes) <= LISTED
    # How many are drawn at first is a matter of held_out alone: what is held out does not move when train grows.
    pool, key = _fresh(task, _draw(task, task.train_sizes, max(20_000, 20 * held_out), rng), taken, salt)
    low, high = _bounds(key, train if listed else None, bool(steer))
    for name, side in (("validation", key < low), ("random", key >= high)):
        parts[name] = pool[side][:held_out]
        _not_empty(task, name, parts[name], f"{len(pool)} problems in all")
    while True:
        middle = np.flatnonzero((key >= low) & (key < high))
        free, steered = _cut(key[middle], train or (len(middle) if listed else 2000), steer)
        if listed or len(free) + steer >= (train or 2000):
            break
        more = task.sample(rng, 2 * len(pool), task.train_sizes)
        grown, its_key = _fresh(task, _distinct(np.concatenate([pool, more])), taken, salt)
        if len(grown) < 1.02 * len(pool):
            break
        pool, key = grown, its_key
    require(steer < len(middle), f"steer must be below the {len(middle)} problems to train on, not {steer}")
    if len(free) + steer < (train or 0) or not len(free):
        raise UserError(
            f"a train set of {train or steer + 1} is too large: {task.name} has {len(free) + steer} problems to train "
            f"on here (of {len(pool)} different ones; the rest is held out, or equals one that steers)"
        )
    return {**parts, "train": pool[middle[free]], "steer": pool[middle[steered]]}, []


def _draw(task: Task, sizes: Sizes, count: int, rng: np.random.Generator) -> Ints:
    """Different problems of these sizes in random order: all, or a sample of `count` where there are many."""
    if task.count(sizes) <= LISTED:
        x = task.every(sizes)
        rng.shuffle(x)
        return x
    return _distinct(task.sample(rng, count, sizes))


def _fresh(task: Task, x: Ints, taken: NDArray[np.uint64], salt: np.uint64) -> tuple[Ints, NDArray[np.uint64]]:
    """The problems whose class is not taken, and their salted class numbers."""
    key = classes(task, x)
    keep = ~np.isin(key, taken)
    return x[keep], _mix(key[keep] ^ salt)


def _not_empty(task: Task, name: str, x: Ints, reason: str) -> None:
    require(len(x) > 0, f"the held-out split {name!r} of {task.name} would be empty: {reason}")


def _bounds(key: NDArray[np.uint64], train: int | None, steer: bool) -> tuple[np.uint64, np.uint64]:
    """Classes below the first number are validation, those from the second on are test, the others train.

    A tenth of the classes each. Where `train` problems need more room, the two sides give up the classes next
    to the middle in turn, down to one each: what stays held out was held out before.
    """
    groups, sizes = np.unique(key, return_counts=True)
    if len(groups) < 3:
        return np.uint64(0), np.uint64(2**64 - 1)
    low = max(1, round(HELD_OUT_SHARE * len(groups)))
    high = len(groups) - low
    if train is not None:
        need = train + (int(sizes.max()) - 1 if steer else 0)  # steer may leave a class unfinished
        given_up = np.column_stack([np.arange(low - 1, 0, -1), np.arange(high, len(groups) - 1)]).ravel()
        room = sizes[low:high].sum() + np.concatenate([[0], sizes[given_up].cumsum()])
        count = min(int(np.searchsorted(room, need)), len(given_up))
        low, high = low - (count + 1) // 2, high + count // 2
    return groups[low], groups[high]


def _cut(key: NDArray[np.uint64], train: int, steer: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for the gradient (at most train − steer) and for steer that share no class.

    Steer takes whole classes out of the first `train` rows, in the order of a hash. The rest of its last class
    goes to neither; later rows make up for it.
    """
    steered = np.sort(np.argsort(_mix(key[:train]), kind="stable")[:steer])
    return np.flatnonzero(~np.isin(key, key[steered]))[: train - steer], steered


def _distinct(x: Ints) -> Ints:
    """Each problem once, in the order of first appearance."""
    return x[np.sort(np.unique(_hashed(x), return_index=True)[1])]


def _by_size(task: Task, train: int | None, steer: int, held_out: int, seed: int) -> tuple[dict[str, Ints], list[str]]:
    """Whole sizes held out, where the size is the only input (factorial)."""
    rng = np.random.default_rng([_number(f"problems {task.name}"), seed])
    parts: dict[str, Ints] = {}
    for name, sizes in (("interpolation", task.gap_sizes), ("extrapolation", task.beyond_sizes)):
        if sizes:
            x = task.every(sizes)
            parts[name] = x[np.sort(rng.permutation(len(x))[:held_out])]
    if not parts:
        raise UserError(f"the held-out split of {task.name} is empty: name sizes in gap or beyond")
    pool = task.every(task.train_sizes)
    train = len(pool) if train is None else train
    if train > len(pool):
        raise UserError(f"a train set of {train} is larger than the domain: {len(pool)} problems")
    require(steer < train, f"steer must be below the {train} problems to train on, not {steer}")
    # The smallest and the largest come first, then the others at random: what is trained on surrounds the gap.
    order = np.concatenate([[0, len(pool) - 1][: len(pool)], 1 + rng.permutation(max(len(pool) - 2, 0))])[:train]
    require(
        train - steer > 1 or not task.gap_sizes,
        f"a gap has to lie between two training problems of {task.name}: train − steer must be at least 2",
    )
    parts["train"], parts["steer"] = pool[np.sort(order[: train - steer])], pool[np.sort(order[train - steer :])]
    name = "interpolation" if "interpolation" in parts else "extrapolation"
    parts["validation"] = parts[name]
    return parts, [
        f"the meter's held-out loss is read on the {name} problems themselves, as there are no others; "
        "nothing but the meter sees them before the end"
    ]


def _declared(
    task: Task, declared: NDArray[np.int64], train: int | None, steer: int, held_out: int, seed: int
) -> tuple[dict[str, Ints], list[str]]:
    """The splits that a file of pairs names itself: 0 validation, 2 train, 3 + i the test split i."""
    rows = np.random.default_rng([_number("problems of a file"), seed]).permutation(len(declared))
    notes: list[str] = []
    pool, *held = (rows[declared[rows] == number][:, None] for number in (2, 0, 3, 4, 5))
    parts = {name: x[:held_out] for name, x in zip(("validation", *TESTS), held, strict=True) if len(x)}
    if not len(pool) or not set(parts) & set(TESTS):
        raise UserError("the file's split column must name both train and at least one test split")
    if train is not None and train > len(pool):
        raise UserError(f"a train set of {train} is larger than what the file calls train: {len(pool)} problems")
    if "validation" not in parts:
        if len(pool) < 20:
            raise UserError("the file names no validation split and has too few training problems to take one from")
        key = classes(task, pool)
        free, _ = _cut(key, len(pool), min(held_out, len(pool) // 10))
        rest = ~np.isin(np.arange(len(pool)), free)  # whole classes
        parts["validation"], pool = pool[rest][:held_out], pool[free]
        notes.append(
            f"no validation split is named: {len(parts['validation'])} training problems are held out for the meter"
        )
    free, steered = _cut(classes(task, pool), train or len(pool), steer)
    require(steer < len(pool), f"steer must be below the {len(pool)} problems to train on, not {steer}")
    if len(free) + steer < (train or 0) or not len(free):
        raise UserError(
            f"a train set of {train or steer + 1} is too large: {len(free) + steer} problems of the file are left to "
            "train on (the others are held out, or equal one that steers)"
        )
    return {**parts, "train": pool[free], "steer": pool[steered]}, notes


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
    number = numbered(problems.solution.answers)
    size = np.bincount(number)
    if len(chosen) and len(size) < 2:
        raise UserError("noisy labels need a task with at least two different answers")
    # Sorted by answer, those with the own answer are one block: draw a place outside it.
    first, own = (size.cumsum() - size)[number[chosen]], size[number[chosen]]
    place = rng.integers(n - own)
    donor = np.arange(n)
    donor[chosen] = np.argsort(number, kind="stable")[np.where(place < first, place, place + own)]
    return Problems(problems.x, _take(problems.solution, donor))


def numbered(rows: Ints) -> NDArray[np.int64]:
    """The same number for the same row, 0, 1, 2, … by first appearance. (row,)"""
    seen: dict[tuple[object, ...], int] = {}
    return np.array([seen.setdefault(row, len(seen)) for row in map(tuple, rows.tolist())], dtype=np.int64)
