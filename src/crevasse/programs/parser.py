"""Programs from text. Nothing in the text is ever executed: what is not of the grammar is refused."""

import re
from collections.abc import Collection

from crevasse.errors import UserError
from crevasse.programs.language import (
    ABOVE,
    BEFORE,
    DIAGONAL,
    DOWN,
    HELPER,
    LAST,
    MINUS,
    MOD,
    OPERATORS,
    OVER,
    PLUS,
    STOPS,
    TIMES,
    Branch,
    Call,
    Closed,
    Expression,
    Helped,
    Linear,
    Operation,
    Program,
    Recursion,
    Tail,
    constant,
    operation,
)  # fmt: skip

#: Characters of a program, and parentheses within one another.
LENGTH, DEPTH = 400, 30

_TOKEN = re.compile(
    r"\s*(?:(?P<call>[fg]\(n-[12]\)|f\(a(?:-1)?,\s*b(?:-1)?\))|(?P<number>[0-9]+)|(?P<name>[nab](?![a-z]))"
    r"|(?P<sign>mod\b|f\(|[-+·*×/(),])|(?P<bad>\S))"
)
_SPELLINGS = {"*": TIMES, "×": TIMES}


def parse(text: str) -> Program:
    """A program from its text, as `text` writes it; * and × stand for · too, and blanks are free but within calls.

    Raises UserError for all else.
    """
    if len(text) > LENGTH:
        raise UserError(f"a program has at most {LENGTH} characters, not {len(text)}")
    sides = [tuple(part.strip() for part in equation.split("=", 1)) for equation in text.split(";")]
    if any(len(side) != 2 for side in sides):
        raise _not_one(text)
    *given, (left, right) = sides
    if re.fullmatch(r"f\(a, *b\)", left) and not given:
        return _two(right)
    if [left, *(g[0] for g in given)] == ["f(n)"]:
        return Closed(_expression(right, {"n"}))
    known = [(re.fullmatch(r"([fg])\(([0-9]{1,4})\)", g[0]), g[1]) for g in given]
    values = [(m[1], int(m[2]), _number(v)) for m, v in known if m]
    start = values[0][1] if values else 0
    if (
        left == "f(n)"
        and len(values) == len(given)
        and [v[:2] for v in values] == [("f", start), ("f", start + 1)][: len(given)]
    ):
        allowed = {"n", LAST} | ({BEFORE} if len(given) == 2 else set())
        return Recursion(start, tuple(v[2] for v in values), _expression(right, allowed))
    if (
        [g[0] for g in given[2:]] == ["f(n)"]
        and left == "g(n)"
        and [v[:2] for v in values] == [("f", start), ("g", start)]
    ):
        allowed = {"n", LAST, HELPER}
        first = (values[0][2], values[1][2])
        return Helped(start, first, _expression(given[2][1], allowed), _expression(right, allowed))
    raise _not_one(text)


def _two(text: str) -> Program:
    """What follows f(a, b) =."""
    branches = re.fullmatch(r"if (.+?) then (.+?) else (.+)", text)
    if not branches:
        return Closed(_expression(text, {"a", "b"}), ("a", "b"))
    stop = " ".join(branches[1].split())
    if stop not in STOPS:
        raise UserError(f"a program stops at {' or at '.join(map(repr, STOPS))}, not at {stop[:40]!r}")
    base, other = _expression(branches[2], {"a", "b"}), _Reader(branches[3])
    if other.take("f("):
        a = other.sum({"a", "b"})
        comma = other.take(",")
        b = other.sum({"a", "b"})
        if not (comma and other.take(")") and other.at_end()):
            raise _not_one(text)
        return Tail(stop, base, a, b)
    return Branch(stop, base, _expression(branches[3], {"a", "b", DOWN, DIAGONAL, ABOVE}))


def _not_one(text: str) -> UserError:
    return UserError(
        f"{text[:60]!r} is no program (write f(n) = n · n, or f(0) = 1; f(n) = n · f(n-1), or"
        " f(a, b) = if b == 0 then a else f(b, a mod b))"
    )


def _number(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]+", text, re.ASCII):
        raise UserError(f"{text[:40]!r} is no integer, as a first value is")
    return int(text)


def _expression(text: str, allowed: Collection[str]) -> Expression:
    reader = _Reader(text)
    tree = reader.sum(allowed)
    if not reader.at_end():
        raise reader.wrong(allowed)
    return tree


class _Reader:
    """The tokens of an expression, read from left to right by recursive descent."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [(str(m.lastgroup), m[m.lastgroup or 0]) for m in _TOKEN.finditer(text)]
        self.tokens.append(("end", ""))
        self.at = 0
        self.depth = 0

    def at_end(self) -> bool:
        return self.tokens[self.at][0] == "end"

    def take(self, *signs: str) -> str:
        """The next token, if it is one of these, in the language's spelling; else nothing."""
        kind, token = self.tokens[self.at]
        token = _SPELLINGS.get(token, token)
        if kind != "sign" or token not in signs:
            return ""
        self.at += 1
        return token

    def wrong(self, allowed: Collection[str]) -> UserError:
        what = self.tokens[self.at][1] or "the end"
        return UserError(
            f"{what!r} cannot stand there in {self.text[:60]!r} (allowed are integers, {', '.join(sorted(allowed))},"
            f" {' '.join(OPERATORS)} and parentheses)"
        )

    def sum(self, allowed: Collection[str]) -> Expression:
        tree = self.product(allowed)
        while sign := self.take(PLUS, MINUS):
            tree = operation(sign, tree, self.product(allowed))
        return tree

    def product(self, allowed: Collection[str]) -> Expression:
        tree = self.atom(allowed)
        while sign := self.take(TIMES, OVER, MOD):
            tree = operation(sign, tree, self.atom(allowed))
        return tree

    def atom(self, allowed: Collection[str]) -> Expression:
        if self.take("("):
            self.depth += 1
            if self.depth > DEPTH:
                raise UserError(f"at most {DEPTH} parentheses may stand within one another")
            tree = self.sum(allowed)
            if not self.take(")"):
                raise self.wrong(allowed)
            self.depth -= 1
            return tree
        minus = bool(self.take(MINUS))
        kind, token = self.tokens[self.at]
        if kind == "number":
            self.at += 1
            tree = constant(-int(token) if minus else int(token))
            if self.tokens[self.at][0] == "name":
                return self.multiple(tree.shift, allowed)
            return tree
        if kind == "name":
            return self.multiple(-1 if minus else 1, allowed)
        if kind == "call" and (name := _spaced(token)) in allowed:
            self.at += 1
            return Operation(MINUS, constant(0), Call(name)) if minus else Call(name)
        raise self.wrong(allowed)

    def multiple(self, scale: int, allowed: Collection[str]) -> Expression:
        """4n, or -n, or n."""
        token = self.tokens[self.at][1]
        if token not in allowed:
            raise self.wrong(allowed)
        self.at += 1
        return Linear(scale, token, 0) if scale else constant(0)


def _spaced(call: str) -> str:
    return re.sub(r",\s*", ", ", call)
