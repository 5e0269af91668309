"""All programs that fit some examples, in the order of their length.

Expressions come from a bank, where each function stands once, in its shortest form. They are worked out by the
thousand, as floats: what comes out is a candidate, and is to be run exactly. Where an example gives the first value of
a recursion, it is that; else small numbers are tried. A constant that is added to a closed form, or multiplies it, is
worked out from the examples, however large it is.
"""

import functools
import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from crevasse.lessons.bank import CHUNK, EXACT, Bank, Floats, Ids
from crevasse.programs.language import (
    ABOVE,
    BEFORE,
    DIAGONAL,
    DOWN,
    FAMILY,
    HELPER,
    LAST,
    MINUS,
    PLUS,
    STOPS,
    TIMES,
    Branch,
    Call,
    Closed,
    Expression,
    Helped,
    Operation,
    Program,
    Recursion,
    Tail,
    TooLargeError,
    UndefinedError,
    bits,
    constant,
    gamma,
    number_bits,
    operation,
    run,
    stops,
    value,
)  # fmt: skip

#: First values that are tried where no example gives one.
FIRST = range(-3, 9)
#: Programs longer than this are not looked for.
LONGEST = 60
#: Bits of the shortest helper that is one, n · g(n-1); g(n-1) alone would be a constant.
SHORTEST_HELPER = 9
#: Largest table of f(a, b) that is worked out for one example.
CELLS = 2000

Found = Iterator[tuple[int, Program | None]]


def sequences(pairs: dict[tuple[int, ...], int], late: Callable[[], bool]) -> Found:
    """Candidates f(n), and None between them, with their bits, in order. Raises EndOfSearchError when it is late."""
    wanted = {n: v for (n,), v in sorted(pairs.items())}
    # A bank of its own, as without calls there are few expressions, so that longer ones are within reach.
    plain, bank = Bank(["n"], [], late), Bank(["n"], [LAST, BEFORE], late)
    starts = sorted({0, 1, min(wanted)} & set(range(min(wanted) + 1)))
    helped = [_Helped(wanted, bank, start) for start in starts]
    waiting: list[tuple[int, int, Program]] = []
    order = itertools.count()  # of two of one length the one found first comes first
    for total in range(1, LONGEST):
        yield total, None
        for program in _closed(plain, total - FAMILY["closed"], wanted):
            heapq.heappush(waiting, (bits(program), next(order), program))
        while waiting and waiting[0][0] <= total:
            yield total, heapq.heappop(waiting)[2]
        for start in starts:
            for count in (1, 2):
                yield from ((total, program) for program in _recursions(bank, total, start, count, wanted))
        for one in helped:
            yield from ((total, program) for program in one.programs(total))


def _float(value: int) -> float:
    """A number beyond all floats is infinite."""
    return float(value) if abs(value) < 10**300 else math.inf if value > 0 else -math.inf


def _close(found: Floats, value: int) -> NDArray[np.bool_]:
    """Where a float may be this number."""
    goal = _float(value)
    return np.asarray((found == goal) | (np.abs(found - goal) <= 1e-9 * abs(goal) * (abs(goal) >= EXACT)))


def _closed(bank: Bank, left: int, wanted: dict[int, int]) -> Iterator[Program]:
    """Closed forms of so many bits, and those with one constant more, which the examples give."""
    ids = bank.level(left)
    at, goals = list(wanted), np.array([_float(v) for v in wanted.values()])
    values = np.stack([bank.evaluate(ids, np.full((1, len(ids)), float(n))) for n in at])
    with np.errstate(all="ignore"):
        more, times = goals[:, None] - values, goals[:, None] / values
        same = np.abs(more - more[0]) <= 1e-9 * np.abs(goals[:, None])
        scaled = np.abs(times - times[0]) <= 1e-9 * np.abs(times[0])
    for k in np.flatnonzero(same.all(0) | scaled.all(0)):
        bank.in_time()
        body = bank.tree(int(ids[k]))
        first = run(Closed(body), at[0])
        if first is None:
            continue
        rest = wanted[at[0]] - first
        if rest == 0:
            yield Closed(body)
        elif same[:, k].all() and bank.uses[ids[k]]:
            yield Closed(operation(PLUS if rest > 0 else MINUS, body, constant(abs(rest))))
        if scaled[:, k].all() and bank.uses[ids[k]] and first and wanted[at[0]] % first == 0 and rest:
            yield Closed(operation(TIMES, constant(wanted[at[0]] // first), body))


@functools.cache
def _numbers(given: int | None) -> list[tuple[int, int]]:
    """First values that are tried, with their bits."""
    return [(number_bits(v), v) for v in (FIRST if given is None else [given])]


def _recursions(bank: Bank, total: int, start: int, order: int, wanted: dict[int, int]) -> Iterator[Program]:
    """Recursions of so many bits from a start on."""
    rest = total - FAMILY[f"recursion {order}"] - gamma(start + 1)
    rows = []
    for first in itertools.product(*(_numbers(wanted.get(start + i)) for i in range(order))):
        ids = bank.level(rest - sum(size for size, _ in first))
        uses = bank.uses[ids]
        ids = ids[uses & 4 > 0] if order == 2 else ids[uses & 6 == 2]
        values = [_float(v) for _, v in first]
        rows.append(np.stack([ids, *(np.full(len(ids), v) for v in (values[-1], values[0]))]))
    table = np.concatenate(rows, axis=1)
    for at in range(0, table.shape[1], CHUNK):
        part = table[:, at : at + CHUNK]
        ids, f, before = part[0].astype(np.int64), part[1], part[2]
        origin = np.arange(len(ids))
        for n in range(start + order, max(wanted) + 1):
            bank.in_time()
            new = bank.evaluate(ids, np.stack([np.full(len(ids), float(n)), f, before]))
            keep = np.flatnonzero(_close(new, wanted[n]) if n in wanted else ~np.isnan(new))
            ids, origin, f, before = ids[keep], origin[keep], new[keep], f[keep]
            if not len(ids):
                break
        for k in origin:
            exact = tuple(_exact(start + i, part[2 - i, k], wanted) for i in range(order))
            found = Recursion(start, exact, bank.tree(int(part[0, k])))
            yield from _back_to_0(found)
            yield found


def _back_to_0(found: Recursion) -> Iterator[Program]:
    """The same recursion from 0 on, if its step is linear in f(n-1), so that the first value follows from a later one.

    It is shorter where the values do not grow downwards, and f(0) may be larger than what is tried.
    """
    start, body, f = found.start, found.body, found.first[0]
    if not start or len(found.first) > 1:
        return
    try:
        for n in range(start, 0, -1):
            zero, slope = value(body, {"n": n, LAST: 0}), value(body, {"n": n, LAST: 1})
            slope -= zero
            if not slope or (f - zero) % slope:
                return
            f = (f - zero) // slope
    except (UndefinedError, TooLargeError):
        return
    yield Recursion(0, (f,), body)


def _exact(n: int, value: float, wanted: dict[int, int]) -> int:
    """A first value with all its digits."""
    return wanted[n] if n in wanted else int(value)


class _Helped:
    """Recursions with a helper, from one start on: pairs of expressions, the second call of each the helper's."""

    def __init__(self, wanted: dict[int, int], bank: Bank, start: int) -> None:
        self.wanted, self.bank, self.start = wanted, bank, start
        #: By the bits of body and first values: rows of body, f(start), g(start), f(start + 1).
        self.begun: dict[int, list[Floats]] = defaultdict(list)
        self.first: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for (size, f), (more, g) in itertools.product(_numbers(wanted.get(start)), _numbers(None)):
            self.first[size + more].append((_float(f), float(g)))

    def programs(self, total: int) -> Iterator[Program]:
        """Those of so many bits, of which some are the helper's."""
        rest = total - FAMILY["helped"] - gamma(self.start + 1)
        self._begin(rest - SHORTEST_HELPER)
        for size, tables in self.begun.items():
            helpers = self.bank.level(rest - size)
            helpers = helpers[self.bank.uses[helpers] & 4 > 0]
            for table in tables if len(helpers) else []:
                step = max(1, CHUNK // len(helpers))
                for at in range(0, table.shape[1], step):
                    yield from self._follow(table[:, at : at + step], helpers)

    def _begin(self, size: int) -> None:
        """The first step of all bodies and first values of so many bits, without the helper."""
        for least, first in self.first.items():
            ids = self.bank.level(size - least)
            ids = ids[self.bank.uses[ids] & 4 > 0]
            if not len(ids):
                continue
            body = np.tile(ids, len(first))
            f, g = np.repeat(np.array(first).T, len(ids), axis=1)
            new = self.bank.evaluate(body, np.stack([np.full(len(body), self.start + 1.0), f, g]))
            goal = self.wanted.get(self.start + 1)
            keep = np.flatnonzero(~np.isnan(new) if goal is None else _close(new, goal))
            if len(keep):
                self.begun[size].append(np.stack([body, f, g, new])[:, keep])

    def _follow(self, table: Floats, helpers: Ids) -> Iterator[Program]:
        """The pairs of begun bodies and helpers that go on to fit."""
        self.bank.in_time()
        row, column = (side.ravel() for side in np.indices((table.shape[1], len(helpers))))
        body, helper = table[0, row].astype(np.int64), helpers[column]
        n = self.start + 1
        g = self.bank.evaluate(helper, np.stack([np.full(len(row), float(n)), table[1, row], table[2, row]]))
        f = table[3, row]
        keep = np.flatnonzero(~np.isnan(g))
        while True:
            row, body, helper, f, g = row[keep], body[keep], helper[keep], f[keep], g[keep]
            if n >= max(self.wanted) or not len(row):
                break
            n += 1
            env = np.stack([np.full(len(row), float(n)), f, g])
            f, g = self.bank.evaluate(body, env), self.bank.evaluate(helper, env)
            fits = ~np.isnan(f) & ~np.isnan(g)
            keep = np.flatnonzero(fits & _close(f, self.wanted[n]) if n in self.wanted else fits)
        for r, b, h in zip(row, body, helper, strict=True):
            first = _exact(self.start, table[1, r], self.wanted), int(table[2, r])
            trees = [_with_helper(self.bank.tree(int(i))) for i in (b, h)]
            yield Helped(self.start, first, trees[0], trees[1])


def _with_helper(tree: Expression) -> Expression:
    """The bank's second call is the helper's."""
    match tree:
        case Operation(operator, left, right):
            return Operation(operator, _with_helper(left), _with_helper(right))
        case Call(name) if name == BEFORE:
            return Call(HELPER)
    return tree


def functions(pairs: dict[tuple[int, ...], int], late: Callable[[], bool]) -> Found:
    """Candidates f(a, b), and None between them, with their bits, in order. Raises EndOfSearchError when it is late."""
    wanted = dict(sorted(((x[0], x[1]), v) for x, v in pairs.items()))
    bank = Bank(["a", "b"], [DOWN, DIAGONAL, ABOVE], late)
    tails = _Tails(wanted, bank)
    for total in range(1, LONGEST):
        yield total, None
        ids = _plain(bank, total - FAMILY["closed 2"])
        for k in ids[_fits(bank, ids, wanted)]:
            yield total, Closed(bank.tree(int(k)), ("a", "b"))
        for stop, size in STOPS.items():
            rest = total - FAMILY["branch"] - size
            for left in range(3, rest - 2):
                yield from ((total, p) for p in _branches(bank, stop, _plain(bank, left), rest - left, wanted))
            yield from ((total, p) for p in tails.programs(stop, total - FAMILY["tail"] - size))


def _plain(bank: Bank, left: int) -> Ids:
    """Expressions of so many bits without a call."""
    ids = bank.level(left)
    return ids[bank.uses[ids] < 4]


def _fits(bank: Bank, ids: Ids, wanted: dict[tuple[int, int], int]) -> NDArray[np.bool_]:
    """Which expressions of the arguments alone fit."""
    fits = np.ones(len(ids), np.bool_)
    for (a, b), v in wanted.items():
        fits &= _close(bank.evaluate(ids, _arguments(a, b, len(ids))), v)
    return fits


def _arguments(a: float, b: float, count: int) -> Floats:
    return np.repeat(np.array([a, b, np.nan, np.nan, np.nan])[:, None], count, 1)


def _branches(bank: Bank, stop: str, bases: Ids, left: int, wanted: dict[tuple[int, int], int]) -> Iterator[Program]:
    """Programs that end with one of these expressions, with a step of so many bits."""
    steps = bank.level(left)
    for down in (True, False):
        ids = steps[(bank.uses[steps] < 8) & (bank.uses[steps] > 3) if down else bank.uses[steps] >= 8]
        width = max(1, CHUNK // max(1, len(ids)))
        for at in range(0, len(bases) if len(ids) else 0, width):
            base, step = (side.ravel() for side in np.meshgrid(bases[at : at + width], ids, indexing="ij"))
            for (a, b), v in sorted(wanted.items(), key=lambda pair: math.prod(pair[0])):
                if (1 if down else a + 1) * (b + 1) > CELLS:
                    return
                fits = _close(_table(bank, base, step, stop, a if down else 0, a, b), v)
                base, step = base[fits], step[fits]
                if not len(base):
                    break
            for tree, other in zip(base, step, strict=True):
                yield Branch(stop, bank.tree(int(tree)), bank.tree(int(other)))


def _table(bank: Bank, base: Ids, step: Ids, stop: str, low: int, a: int, b: int) -> Floats:
    """f(a, b) for each base and step, from the row `low` on."""
    nothing = np.full(len(base), np.nan)
    above = [nothing] * (b + 1)
    ends, goes_on = bank.plan(base), bank.plan(step)
    for i in range(low, a + 1):
        bank.in_time()
        row: list[Floats] = []
        for j in range(b + 1):
            env = _arguments(i, j, len(base))
            if stops(stop, i, j):
                row.append(ends(env))
                continue
            env[2:] = row[j - 1] if j else nothing, above[j - 1] if j else nothing, above[j]
            row.append(goes_on(env))
        above = row
    return above[b]


class _Tails:
    """Tail calls: where each pair of new arguments ends is worked out once for all bases."""

    def __init__(self, wanted: dict[tuple[int, int], int], bank: Bank) -> None:
        self.wanted, self.bank = wanted, bank
        self.ends: dict[tuple[str, int], list[tuple[Ids, Ids, Floats]]] = {}

    def programs(self, stop: str, left: int) -> Iterator[Program]:
        """Those of so many bits for base and new arguments."""
        for size in range(3, left - 5):
            bases = _plain(self.bank, size)
            for a, b, ends in self._ends(stop, left - size) if len(bases) else []:
                for base in bases:
                    fits = np.ones(len(a), np.bool_)
                    for (x, y), v in zip(ends, self.wanted.values(), strict=True):
                        env = np.stack([x, y, x, x, x])
                        fits &= _close(self.bank.evaluate(np.full(len(a), base), env), v)
                    for k in np.flatnonzero(fits):
                        trees = [self.bank.tree(int(i)) for i in (base, a[k], b[k])]
                        yield Tail(stop, trees[0], trees[1], trees[2])

    def _ends(self, stop: str, left: int) -> list[tuple[Ids, Ids, Floats]]:
        """Pairs of new arguments of so many bits that end from all examples, with where: (example, 2, pair)."""
        if (stop, left) not in self.ends:
            self.ends[stop, left] = []
            for size in range(3, left - 2):
                i, j = _plain(self.bank, size), _plain(self.bank, left - size)
                if len(i) and len(j):
                    pairs = [side.ravel() for side in np.meshgrid(i, j, indexing="ij")]
                    self.ends[stop, left].append(self._run(stop, *pairs))
        return self.ends[stop, left]

    def _run(self, stop: str, first: Ids, second: Ids) -> tuple[Ids, Ids, Floats]:
        alive = np.arange(len(first))
        ends = np.full((len(self.wanted), 2, len(first)), np.nan)
        for example, (a, b) in enumerate(self.wanted):
            x, y, at = np.full(len(alive), float(a)), np.full(len(alive), float(b)), alive
            for _ in range(2 * max(a, b) + 4):
                self.bank.in_time()
                over = np.zeros(len(at), np.bool_)
                for name, zero in (("a == 0", x == 0), ("b == 0", y == 0), ("a == b", x == y)):
                    over |= zero & (name in stop)
                ends[example][:, at[over]] = x[over], y[over]
                at, x, y = at[~over], x[~over], y[~over]
                env = np.stack([x, y, x, x, x])
                x, y = self.bank.evaluate(first[at], env), self.bank.evaluate(second[at], env)
                going = np.isfinite(x) & np.isfinite(y)
                at, x, y = at[going], x[going], y[going]
                if not len(at):
                    break
            alive = alive[~np.isnan(ends[example, 0, alive])]
        return first[alive], second[alive], ends[:, :, alive]
