"""Recursive programs over the integers: trees, their text, what they compute, and how long they are.

    f(n) = n · n                                                closed
    f(0) = 1; f(n) = n · f(n-1)                                 recursion, from one value or two
    f(0) = 0; g(0) = 1; f(n) = f(n-1) + g(n-1); g(n) = 2 · g(n-1)   with a helper that runs beside it
    f(a, b) = if b == 0 then a else f(b, a mod b)               tail call
    f(a, b) = if b == 0 then 1 else a · f(a, b-1)               calls of f(a, b-1), f(a-1, b-1) and f(a-1, b)

Division is exact: where a remainder is left, the program is undefined. `mod` has the sign of its divisor, as in Python.
What a program computes is bounded, in digits and in steps: beyond, its value is None as where it is undefined.

**Length.** The bits of a program are those of a fixed prefix code: each tree is written root first, each token with
the bits of `TOKENS`, each number with those of `number_bits`. A program begins with its family (`FAMILY`). The lengths
obey Kraft's inequality, so 2^-bits is a prior that sums to at most one. A multiple of an argument plus a constant, as
`4n-2`, is one token with two numbers: coefficients of recursions are of this kind (those of all hypergeometric
sequences are products of them), and as trees of five tokens they would cost more than they tell.
"""

from collections.abc import Iterator
from dataclasses import dataclass

#: Values with more digits are None, and so is what takes more steps.
DIGITS, STEPS = 4000, 100_000
_LARGEST = 10**DIGITS

PLUS, MINUS, TIMES, OVER, MOD = OPERATORS = ("+", "-", "·", "/", "mod")
LAST, BEFORE, HELPER = "f(n-1)", "f(n-2)", "g(n-1)"
DOWN, DIAGONAL, ABOVE = "f(a, b-1)", "f(a-1, b-1)", "f(a-1, b)"
CALLS = (LAST, BEFORE, HELPER, DOWN, DIAGONAL, ABOVE)

#: Bits of a token. The names n and a, b never stand in one program.
TOKENS = {
    "n": 2, "a": 3, "b": 3, PLUS: 3, TIMES: 3, MINUS: 4, OVER: 4, MOD: 6, "constant": 4, "linear": 4,
    LAST: 3, BEFORE: 4, HELPER: 4, DOWN: 3, DIAGONAL: 4, ABOVE: 5,
}  # fmt: skip
#: Bits of a family: one-argument ones sum to one, two-argument ones too.
FAMILY = {"closed": 1, "recursion 1": 2, "recursion 2": 3, "helped": 3, "closed 2": 2, "tail": 2, "branch": 1}
#: When a two-argument program ends, and the bits of that.
STOPS = {"b == 0": 1, "a == 0": 3, "a == b": 3, "b == 0 or a == b": 3, "a == 0 or b == 0": 3}


class UndefinedError(ArithmeticError):
    """A remainder, a zero divisor, or an argument for which nothing is said."""


class TooLargeError(ArithmeticError):
    """More digits or steps than are allowed."""


@dataclass(frozen=True)
class Linear:
    """scale · name + shift; a constant has scale 0 and no name."""

    scale: int
    name: str
    shift: int


@dataclass(frozen=True)
class Call:
    """A value of the program itself, one of `CALLS`."""

    name: str


@dataclass(frozen=True)
class Operation:
    """One of `OPERATORS` between two expressions."""

    operator: str
    left: "Expression"
    right: "Expression"


Expression = Linear | Call | Operation


def constant(value: int) -> Linear:
    """A number."""
    return Linear(0, "", value)


def variable(name: str) -> Linear:
    """An argument."""
    return Linear(1, name, 0)


@dataclass(frozen=True)
class Closed:
    """f(n) or f(a, b) as an expression of its arguments."""

    body: Expression
    arguments: tuple[str, ...] = ("n",)


@dataclass(frozen=True)
class Recursion:
    """One or two values from `start` on, then each of n and the one or two before it."""

    start: int
    first: tuple[int, ...]
    body: Expression
    arguments: tuple[str, ...] = ("n",)


@dataclass(frozen=True)
class Helped:
    """f and a helper g, both from one value on; each next one of n, f(n-1) and g(n-1)."""

    start: int
    first: tuple[int, int]
    body: Expression
    helper: Expression
    arguments: tuple[str, ...] = ("n",)


@dataclass(frozen=True)
class Tail:
    """f(a, b) = base where it stops (`STOPS`), else f of two other arguments."""

    stop: str
    base: Expression
    a: Expression
    b: Expression
    arguments: tuple[str, ...] = ("a", "b")


@dataclass(frozen=True)
class Branch:
    """f(a, b) = base where it stops (`STOPS`), else of smaller f. Defined for a, b >= 0."""

    stop: str
    base: Expression
    step: Expression
    arguments: tuple[str, ...] = ("a", "b")


Program = Closed | Recursion | Helped | Tail | Branch


def run(program: Program, *arguments: int) -> int | None:
    """The value, by iteration; None where it is undefined, or larger or longer than the limits."""
    try:
        return compute(program, *arguments)
    except (UndefinedError, TooLargeError):
        return None


def compute(program: Program, *arguments: int) -> int:
    """As `run`, but raises UndefinedError or TooLargeError."""
    if len(arguments) != len(program.arguments):
        raise TypeError(f"a program of {len(program.arguments)} arguments, not {len(arguments)}")
    match program:
        case Closed(body, names):
            return value(body, dict(zip(names, arguments, strict=True)))
        case Recursion() | Helped():
            return _follow(program, arguments[0])
        case Tail():
            return _tail(program, *arguments)
        case Branch():
            return _branch(program, *arguments)


def operation(operator: str, left: Expression, right: Expression) -> Expression:
    """An operation; an argument plus or minus a constant is one token, as in the text."""
    match operator, left, right:
        case ("+" | "-", Linear(scale, name, 0), Linear(0, _, shift)) if scale and shift > 0:
            return Linear(scale, name, shift if operator == PLUS else -shift)
    return Operation(operator, left, right)


def value(tree: Expression, env: dict[str, int]) -> int:
    """An expression's value, given those of arguments and calls. Raises UndefinedError or TooLargeError."""
    match tree:
        case Linear(scale, name, shift):
            return scale * env[name] + shift if scale else shift
        case Call(name):
            if name not in env:
                raise UndefinedError
            return env[name]
        case Operation(operator, left, right):
            x, y = value(left, env), value(right, env)
    if operator == PLUS:
        x += y
    elif operator == MINUS:
        x -= y
    elif operator == TIMES:
        x *= y
    elif y == 0:
        raise UndefinedError
    elif operator == MOD:
        x %= y
    else:
        x, rest = divmod(x, y)
        if rest:
            raise UndefinedError
    if abs(x) >= _LARGEST:
        raise TooLargeError
    return x


def _follow(program: Recursion | Helped, end: int) -> int:
    """f(end), step by step from the start."""
    if end < program.start:
        raise UndefinedError
    if end - program.start > STEPS:
        raise TooLargeError
    if isinstance(program, Helped):
        f, g = program.first
        for n in range(program.start + 1, end + 1):
            env = {"n": n, LAST: f, HELPER: g}
            f, g = value(program.body, env), value(program.helper, env)
        return f
    past = list(program.first)
    for n in range(program.start + len(past), end + 1):
        past.append(value(program.body, {"n": n, LAST: past[-1]} | ({BEFORE: past[-2]} if len(past) > 1 else {})))
        del past[:-2]
    return past[min(end - program.start, len(past) - 1)]


def stops(stop: str, a: int, b: int) -> bool:
    """Whether a condition of `STOPS` holds."""
    return ("b == 0" in stop and b == 0) or ("a == 0" in stop and a == 0) or ("a == b" in stop and a == b)


def _tail(program: Tail, a: int, b: int) -> int:
    for _ in range(STEPS):
        env = {"a": a, "b": b}
        if stops(program.stop, a, b):
            return value(program.base, env)
        a, b = value(program.a, env), value(program.b, env)
    raise TooLargeError


def _branch(program: Branch, a: int, b: int) -> int:
    """By a table, row by row; a value that nothing asks for may be undefined in it."""
    if a < 0 or b < 0:
        raise UndefinedError
    called = calls(program.step)
    rows = range(0 if called & {DIAGONAL, ABOVE} else a, a + 1)
    if len(rows) * (b + 1) > STEPS:
        raise TooLargeError
    above: list[int | None] = []
    for i in rows:
        row: list[int | None] = []
        for j in range(b + 1):
            env = {"a": i, "b": j}
            near = {
                DOWN: row[j - 1] if j else None,
                DIAGONAL: above[j - 1] if j and above else None,
                ABOVE: above[j] if above else None,
            }
            tree = program.base if stops(program.stop, i, j) else program.step
            try:
                row.append(value(tree, env | {k: v for k, v in near.items() if v is not None}))
            except UndefinedError:
                row.append(None)
        above = row
    found = above[b]
    if found is None:
        raise UndefinedError
    return found


def leaves(tree: Expression) -> Iterator[Linear | Call]:
    """From left to right."""
    if isinstance(tree, Operation):
        yield from leaves(tree.left)
        yield from leaves(tree.right)
    else:
        yield tree


def calls(tree: Expression) -> set[str]:
    """The names of the calls in a tree."""
    return {leaf.name for leaf in leaves(tree) if isinstance(leaf, Call)}


# Length


def gamma(k: int) -> int:
    """Bits of k >= 1 (Elias 1975): 1, 3, 3, 5, 5, 5, 5, 7, ..."""
    return 2 * k.bit_length() - 1


def number_bits(k: int) -> int:
    """Bits of an integer, by the exponential Golomb code of order 1: 0 and 1 cost 2; -1, 2, -2 and 3 cost 4."""
    return 1 + gamma((2 * abs(k) - (k > 0)) // 2 + 1)


def expression_bits(tree: Expression, names: int = 1) -> int:
    """Bits of an expression, where a linear term also says which of so many arguments it is of."""
    match tree:
        case Operation(operator, left, right):
            return TOKENS[operator] + expression_bits(left, names) + expression_bits(right, names)
        case Call(name):
            return TOKENS[name]
        case Linear(0, _, shift):
            return TOKENS["constant"] + number_bits(shift)
        case Linear(1, name, 0):
            return TOKENS[name]
        case Linear(scale, _, shift):
            # The scale is not 0, so its code has 1 in the place of 0, 2 in that of 1, and so on.
            return TOKENS["linear"] + names - 1 + number_bits(scale - (scale > 0)) + number_bits(shift)


def bits(program: Program) -> int:
    """The length of a program."""
    names = len(program.arguments)
    match program:
        case Closed(body):
            return FAMILY["closed" if names == 1 else "closed 2"] + expression_bits(body, names)
        case Recursion(start, first, body):
            parts = [gamma(start + 1), *map(number_bits, first), expression_bits(body)]
            return FAMILY[f"recursion {len(first)}"] + sum(parts)
        case Helped(start, first, body, helper):
            parts = [gamma(start + 1), *map(number_bits, first), expression_bits(body), expression_bits(helper)]
            return FAMILY["helped"] + sum(parts)
        case Tail(stop, base, a, b):
            return FAMILY["tail"] + STOPS[stop] + sum(expression_bits(tree, 2) for tree in (base, a, b))
        case Branch(stop, base, step):
            return FAMILY["branch"] + STOPS[stop] + sum(expression_bits(tree, 2) for tree in (base, step))


# Text


def text(program: Program) -> str:
    """How a program is written; `parse` reads it back."""
    match program:
        case Closed(body, names):
            return f"f({', '.join(names)}) = {written(body)}"
        case Recursion(start, first, body):
            return "; ".join([*(f"f({start + i}) = {v}" for i, v in enumerate(first)), f"f(n) = {written(body)}"])
        case Helped(start, (f, g), body, helper):
            return f"f({start}) = {f}; g({start}) = {g}; f(n) = {written(body)}; g(n) = {written(helper)}"
        case Tail(stop, base, a, b):
            return f"f(a, b) = if {stop} then {written(base)} else f({written(a)}, {written(b)})"
        case Branch(stop, base, step):
            return f"f(a, b) = if {stop} then {written(base)} else {written(step)}"


def written(tree: Expression) -> str:
    """An expression's text, with no more parentheses than it needs."""
    if isinstance(tree, Call):
        return tree.name
    if isinstance(tree, Linear):
        times = {0: "", 1: tree.name, -1: f"-{tree.name}"}.get(tree.scale, f"{tree.scale}{tree.name}")
        return str(tree.shift) if not times else times + (f"{tree.shift:+d}" if tree.shift else "")
    additive = tree.operator in (PLUS, MINUS)

    def side(part: Expression, right: bool) -> str:
        inner = written(part)
        if isinstance(part, Linear):
            plain = (part.scale, part.shift) == (1, 0) or (part.scale == 0 and part.shift >= 0)
            return inner if plain or (additive and (not right or (part.scale > 0 and not part.shift))) else f"({inner})"
        if isinstance(part, Call):
            return inner
        loose = part.operator in (PLUS, MINUS)
        return f"({inner})" if (loose and not additive) or (right and (loose or not additive)) else inner

    return f"{side(tree.left, False)} {tree.operator} {side(tree.right, True)}"
