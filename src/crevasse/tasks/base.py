"""What a task is: exact answers, traces, domain, symmetries.

A task is a frozen dataclass. Problems are rows of an integer array, one column an input (a sequence takes
several columns and stands last); a row that is shorter than the array is filled up with ``BLANK``.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from crevasse.errors import UserError, unknown
from crevasse.spec import Named, Sizes, format_sizes, require

#: Fills up rows that are shorter than their array. No input, state or answer is negative.
BLANK = -1
#: Whole numbers: int64, or Python integers (dtype object) where they may exceed it.
Ints = NDArray[Any]
Bools = NDArray[np.bool_]
#: Domains up to this size are listed; larger ones are sampled.
LISTED = 400_000


@dataclass(frozen=True)
class Facts:
    """What is known about a task before anybody trains on it."""

    recursive: bool
    closed_form: str  # which one, or "none known"
    depth: str  # parallel depth class, with its source
    control: str  # the task that differs from it in just one property


@dataclass(frozen=True)
class Input:
    """One input of a problem: its name, and the values it may take."""

    name: str
    values: Sequence[int]
    sequence: bool = False
    default: int | None = None  # for `solve`, when left out
    signed: int = 0  # a modulus by which negative values on the command line are reduced

    def parse(self, text: str) -> list[int]:
        """``"3,5,7"`` -> [3, 5, 7]. Raises UserError naming the input and what it may be."""
        out = []
        for part in text.split(",") if self.sequence else [text]:
            try:
                value = int(part.strip().replace("_", ""))
            except ValueError:
                raise UserError(f"{self.name} must be a whole number, not {part.strip()!r}") from None
            if value < 0 and self.signed:
                value %= self.signed
            if value not in self.values:
                raise UserError(f"{self.name}={part.strip()} is not allowed (it may be {self._allowed()})")
            out.append(value)
        return out

    def _allowed(self) -> str:
        v = self.values
        if isinstance(v, range) and v.step == 1:
            return f"{v[0]} to {v[-1]}"
        return ", ".join(map(str, v[:12])) + (", …" if len(v) > 12 else "")


@dataclass(frozen=True)
class Solution:
    """Exact answers and traces of some problems."""

    answers: Ints  # (problem, value)
    states: Ints | None  # (problem, step + 1, value): the running states, BLANK after the end
    operands: Ints | None  # (problem, step, value): what each step takes besides the state


@dataclass(frozen=True)
class Consecutive:
    """Problems that the recursion ties together (for the rule score): n − 1 and n, say, row by row."""

    problems: tuple[Ints, ...]  # each (link, column); the last one is the consequence of the others


class Task(Named, ABC):
    """Base of all tasks."""

    facts: ClassVar[Facts]
    #: In words, what leaves the answer unchanged; `canonical` computes it. None: not known.
    symmetries: ClassVar[str | None] = "none"
    #: Which splits make sense: R random, G gap (interpolation), X extrapolation.
    splits: ClassVar[str] = "GXR"
    #: How a step is spelt: `5*4`.
    operator: ClassVar[str] = "*"
    #: What is asked, in a sentence that a language model can read; empty where nobody wrote one.
    sentence: ClassVar[str] = ""
    #: Columns that one step of a sequence takes.
    per_step: ClassVar[int] = 1

    @property
    def kind(self) -> Literal["residue", "number", "text"]:
        """residue: every value is a symbol below `symbols`; number: of any size, spelt out; text: as given."""
        return "residue"

    @property
    @abstractmethod
    def inputs(self) -> tuple[Input, ...]:
        """The inputs of a problem, in the order of the columns."""

    @abstractmethod
    def solve(self, x: Ints, rounded: bool = False) -> Solution:
        """x (problem, column) -> answers and traces: exact, or going on from what was written down."""

    # --- the domain --------------------------------------------------------------------------------------
    @property
    @abstractmethod
    def train_sizes(self) -> Sizes:
        """Sizes of training problems (n, or the length of a sequence)."""

    @property
    def gap_sizes(self) -> Sizes:
        """Held-out sizes between trained ones: the field `gap`, where a task has it."""
        sizes: Sizes = getattr(self, "gap", Sizes(()))
        return sizes

    @property
    def beyond_sizes(self) -> Sizes:
        """Held-out sizes larger than any trained one: the field `beyond`, where a task has it."""
        sizes: Sizes = getattr(self, "beyond", Sizes(()))
        return sizes

    @property
    def sizes(self) -> tuple[int, ...]:
        """All sizes, trained and held out."""
        return self.train_sizes + self.gap_sizes + self.beyond_sizes

    def size(self, x: Ints) -> Ints:
        """The size of each problem. (problem,)"""
        if self.inputs[-1].sequence:
            return np.asarray((x[:, len(self.inputs) - 1 :] != BLANK).sum(1) // self.per_step)
        return np.asarray(x[:, self._size_column])

    @property
    def _size_column(self) -> int:
        return next((i for i, v in enumerate(self.inputs) if v.name == "n"), 0)

    def valid(self, x: Ints) -> Bools:
        """Which rows are problems of this task (say, n < p), given that each input alone is allowed."""
        return np.ones(len(x), bool)

    def canonical(self, x: Ints) -> Ints:
        """The same row for problems that are the same up to a symmetry, or one is the other. (problem, k)"""
        return x

    def count(self, sizes: Sizes) -> int:
        """An upper bound of the number of problems of these sizes; exact where inputs are independent."""
        if self.inputs[-1].sequence:
            heads = math.prod(len(v.values) for v in self.inputs[:-1])
            values = len(self.inputs[-1].values)
            return heads * sum(int(values ** (s * self.per_step)) for s in sizes)
        size_values = set(self.inputs[self._size_column].values)
        others = math.prod(len(v.values) for i, v in enumerate(self.inputs) if i != self._size_column)
        return others * sum(s in size_values for s in sizes)

    def every(self, sizes: Sizes) -> Ints:
        """All problems of these sizes. (problem, column)"""
        rows: list[Ints] = []
        inputs = self.inputs
        for s in sizes:
            if inputs[-1].sequence:
                axes = [v.values for v in inputs[:-1]] + [inputs[-1].values] * (s * self.per_step)
            else:
                axes = [(s,) if i == self._size_column else v.values for i, v in enumerate(inputs)]
                if s not in inputs[self._size_column].values:
                    continue
            grid = np.array(list(itertools.product(*axes)), dtype=np.int64).reshape(-1, len(axes))
            rows.append(grid[self.valid(grid)])
        return stack_rows(rows, len(inputs))

    def sample(self, rng: np.random.Generator, count: int, sizes: Sizes) -> Ints:
        """`count` problems drawn at random, every size equally often; repeats are possible. (problem, column)"""
        inputs = self.inputs
        drawn = rng.choice(np.array(sizes, dtype=np.int64), count)
        columns = [rng.choice(np.asarray(v.values, dtype=np.int64), count) for v in inputs if not v.sequence]
        if inputs[-1].sequence:
            width = max(sizes) * self.per_step
            tail = rng.choice(np.asarray(inputs[-1].values, dtype=np.int64), (count, width))
            tail[np.arange(width) >= self.per_step * drawn[:, None]] = BLANK
            x = np.column_stack([*columns, tail])
        else:
            columns[self._size_column] = drawn
            x = np.column_stack(columns)
        return x[self.valid(x)]

    # --- answers -----------------------------------------------------------------------------------------
    @property
    @abstractmethod
    def answer_count(self) -> int | None:
        """Number of possible answers, for the chance level of a uniform guess; None if unbounded."""

    @property
    def symbols(self) -> int:
        """Number of residue symbols: every value that is ever written is below it."""
        raise NotImplementedError(f"{self.name} is not written in residues")

    def spell(self, value: Any) -> str:
        """A value as it is written in digits."""
        return str(value)

    def phrase(self, x: Ints, spell: Callable[[int], str] = str) -> str:
        """A problem as a language model reads it. x (column,); spell: how a number is written."""
        words = []
        for at, v in enumerate(self.inputs):
            values = x[at:] if v.sequence else x[at : at + 1]
            words.append(f"{v.name}=" + ",".join(spell(i) for i in values if i != BLANK))
        return f"{self.name} {' '.join(words)}"

    def consecutive(self, x: Ints) -> Consecutive | None:
        """Pairs of consecutive problems made from x, or None where there is no recursion to obey."""
        return None

    def obeys(self, links: Consecutive, outputs: Sequence[Ints]) -> Bools:
        """Do a learner's outputs, each (link, value), satisfy the recursion, right or wrong? (link,)"""
        raise NotImplementedError

    # --- the tool ----------------------------------------------------------------------------------------
    def call(self, arguments: Sequence[int], x: Ints) -> list[int] | None:
        """What the calculator answers to a step's arguments in problem x (column,), or None if it can't."""
        return None

    #: Numbers of values on the two sides of the operator in a call, or None without a tool.
    call_widths: ClassVar[tuple[int, int] | None] = None


class Recursion(Task):
    """A task that runs a state through steps: trace, answer, tool and rule score follow from the step."""

    call_widths: ClassVar[tuple[int, int] | None] = (1, 1)

    @abstractmethod
    def start(self, x: Ints) -> Ints:
        """The state before the first step. (problem, value)"""

    @abstractmethod
    def operands(self, x: Ints) -> Ints:
        """What each step takes besides the state, BLANK after the end. (problem, step, value)"""

    @abstractmethod
    def step(self, state: Ints, operand: Ints, x: Ints) -> Ints:
        """(problem, value), (problem, value), (problem, column) -> the next state (problem, value)"""

    def read(self, state: Ints) -> Ints:
        """The answer in the last state. (problem, value)"""
        return state

    def round(self, state: Ints) -> Ints:
        """What is left of a state once it is written down; all of it, unless a task writes fewer figures."""
        return state

    def solve(self, x: Ints, rounded: bool = False) -> Solution:
        """`rounded`: every step goes on from what its predecessor wrote down, as a pocket calculator would."""
        state, operands = self.start(x), self.operands(x)
        trace = [state]
        done = np.zeros(len(x), bool)
        for t in range(operands.shape[1]):
            done = operands[:, t, 0] == BLANK
            moved = self.step(state, np.where(done[:, None], 1, operands[:, t]), x)
            moved = self.round(moved) if rounded else moved
            state = np.where(done[:, None], state, moved)
            trace.append(np.where(done[:, None], BLANK, state))
        return Solution(self.read(state), np.stack(trace, axis=1), operands)

    def call(self, arguments: Sequence[int], x: Ints) -> list[int] | None:
        left, right = self.call_widths or (0, 0)
        if len(arguments) != left + right or min(arguments) < 0:
            return None
        values = np.array([arguments], dtype=object)
        try:
            out = self.step(values[:, :left], values[:, left:], x[None])[0]
        except (IndexError, TypeError, OverflowError):
            return None
        return [int(v) for v in out]

    def consecutive(self, x: Ints) -> Consecutive | None:
        if self.inputs[-1].sequence:
            return self._same_but_for_the_last(x)
        n = self._size_column
        earlier = x.copy()
        earlier[:, n] -= 1
        keep = np.isin(earlier[:, n], self.sizes)
        return self._telling(earlier[keep], x[keep])

    def _telling(self, *problems: Ints) -> Consecutive | None:
        """The links, but for those whose true answers are all 0: there most recursions hold trivially."""
        keep = np.any([(self.solve(x).answers != 0).any(1) for x in problems], axis=0)
        return Consecutive(tuple(x[keep] for x in problems)) if keep.any() else None

    def _same_but_for_the_last(self, x: Ints) -> Consecutive | None:
        """Problems of at least one step that share all but the last element, which is the next allowed one."""
        x = x[(self.operands(x)[:, :1, 0] != BLANK).any(1)]
        values = np.asarray(self.inputs[-1].values)
        last = len(self.inputs) - 2 + self.size(x) * self.per_step
        rows = np.arange(len(x))
        later = x.copy()
        later[rows, last] = values[(np.searchsorted(values, x[rows, last]) + 1) % len(values)]
        return self._telling(x, later)

    def obeys(self, links: Consecutive, outputs: Sequence[Ints]) -> Bools:
        """Does each link satisfy the recursion? A link whose outputs are all 0 does not count as one that does.

        0 follows from 0 in products whatever the operand: a learner that always writes 0 has found nothing.
        """
        (before, x), (earlier, later) = links.problems, outputs
        told = np.asarray((earlier != 0).any(1) | (later != 0).any(1))
        if not self.inputs[-1].sequence:
            expected = self.step(earlier, self._last_operand(x), x)
            return np.asarray(told & (self.read(expected) == later).all(1))
        # The two share all but the last operand: is there a state from which both outputs follow?
        found = np.zeros(len(x), bool)
        for state in self.state_space():
            held = np.broadcast_to(state, (len(x), len(state)))
            a = self.step(held, self._last_operand(before), before)
            b = self.step(held, self._last_operand(x), x)
            found |= (a == earlier).all(1) & (b == later).all(1)
        return np.asarray(found & told)

    def _last_operand(self, x: Ints) -> Ints:
        """What the last step of each problem takes. (problem, value)"""
        operands = self.operands(x)
        last = (operands[:, :, 0] != BLANK).sum(1) - 1
        return np.asarray(operands[np.arange(len(x)), last])

    def state_space(self) -> Ints:
        """All states of a task that reads a sequence. (state, value)"""
        raise NotImplementedError


def parse_problem(task: Task, words: Sequence[str]) -> Ints:
    """``["p=13", "x=3,5,7"]`` -> x (1, column). A bare value where the task has one input."""
    inputs = {v.name: v for v in task.inputs}
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            if len(inputs) != 1:
                raise UserError(f"{task.name} has several inputs: write {' '.join(f'{k}=…' for k in inputs)}")
            name, value = next(iter(inputs)), word
        if name not in inputs:
            raise unknown(f"input of {task.name}", name, inputs)
        if name in given:
            raise UserError(f"{name} is given twice")
        given[name] = value
    row: list[int] = []
    for name, field in inputs.items():
        if name in given:
            row += field.parse(given[name])
        elif field.default is not None:
            row.append(field.default)
        else:
            raise UserError(f"{task.name} needs {name} (write {name}=…)")
    x = np.array([row], dtype=np.int64 if all(abs(v) < 2**62 for v in row) else object)
    if not task.valid(x)[0]:
        raise UserError(f"{task.name} is not defined there ({task.__doc__ or ''})".replace("``", ""))
    return x


def stack_rows(parts: Sequence[Ints], width: int = 0) -> Ints:
    """Rows of different widths in one array, the shorter ones filled up with BLANK."""
    width = max([width, *(p.shape[1] for p in parts)])
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1])), constant_values=BLANK) for p in parts]
    return np.concatenate(padded) if padded else np.zeros((0, width), np.int64)


def descending(n: Ints, stop: int = 1) -> Ints:
    """n − 1, n − 2, …, stop for each n, BLANK after the end. (problem, step)"""
    longest = max(int(n.max(initial=0)) - stop, 0)
    out = n[:, None] - 1 - np.arange(longest)
    return np.where(out >= stop, out, BLANK)


def is_prime(p: int) -> bool:
    """Trial division: p is a small modulus here."""
    return p > 1 and all(p % d for d in range(2, math.isqrt(p) + 1))


def require_prime(p: int, where: str, largest: int = 10_000) -> None:
    """Raises UserError unless p is a prime that a table can hold."""
    require(p <= largest, f"p of {where} must be at most {largest}, not {p}")
    if not is_prime(p):
        near = next(q for q in itertools.count(max(p, 2)) if is_prime(q))
        raise UserError(f"p of {where} must be prime, not {p} (the next prime is {near})")


def check_sizes(where: str, train: Sizes, gap: Sizes, beyond: Sizes, low: int, high: int) -> None:
    """Raises UserError unless the three lists of sizes are in range and hold out what they say."""
    require(bool(train), f"{where} needs at least one training size")
    for value in (*train, *gap, *beyond):
        require(low <= value <= high, f"sizes of {where} must lie between {low} and {high}, not {value}")
    both = sorted((set(train) & set(gap)) | (set(train) & set(beyond)) | (set(gap) & set(beyond)))
    require(not both, f"{where}: size {format_sizes(tuple(both))} stands in two of train, gap and beyond")
    for value in gap:
        require(min(train) < value < max(train), f"{where}: gap size {value} is not between trained sizes")
    for value in beyond:
        require(value > max(train), f"{where}: size {value} in beyond is not larger than every trained size")
