"""Tokens: how values, problems and marks are written, and how they are read back.

A document is a row of blocks. Each block is an array (problem, token) in which BLANK means "nothing here",
with a role that decides two things: whether its tokens carry loss, and who writes them when the model runs
freely.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crevasse.errors import UserError
from crevasse.tasks import BLANK, Problems, Task

Notation = Literal["auto", "residues", "digits", "reversed", "text"]
#: problem: the prompt. own: the model's words, with loss. given: put in by the laboratory, without loss.
Role = Literal["problem", "own", "given"]
Tokens = NDArray[np.int32]

#: Marks are tokens of their own, whatever characters a problem may contain.
MARKS = ("=", "#", "→", ";", "·", "?", "<end>")
EQUALS, ANSWER, CALL, NEXT, FILLER, UNREADABLE, END = range(len(MARKS))

_NUMBER = re.compile(r"\d{1,400}(?:\.\d{1,400})?(?:e\+[0-3]?\d{1,2})?")


class Part(IntEnum):
    """What a token of a document says; where a model first departs from the document, this tells what broke."""

    PROBLEM = 0
    STATE = 1  # the state before a step, copied
    OPERAND = 2  # what the step takes besides
    RESULT = 3  # the state after the step
    MARK = 4  # operators and marks inside a step
    ANSWER = 5  # the answer, and the mark before it
    END = 6


@dataclass(frozen=True)
class Block:
    """Part of every document. tokens (problem, token), BLANK where a document has none."""

    tokens: Tokens
    role: Role
    part: Part


@dataclass(frozen=True)
class Encoded:
    """Documents as token rows. Rows are filled up at the right with END, which carries no loss there."""

    tokens: Tokens  # (problem, position)
    loss: NDArray[np.bool_]  # (problem, position): the token at this position is a target
    prompt: NDArray[np.int64]  # (problem,) length of the prompt
    steps: NDArray[np.int64]  # (problem,) steps of the recursion, at least 1
    answers: Tokens  # (problem, token) the answer alone, filled up with BLANK
    parts: NDArray[np.int8]  # (problem, position) what each token says: a `Part`

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(problem,) length of each document without what fills it up."""
        positions = np.arange(self.tokens.shape[1])
        return np.asarray(np.where(self.loss, positions, -1).max(1) + 1)


class Script:
    """A task's alphabet in one notation: writes values as tokens and reads them back.

    This one is an alphabet of its own, a token a character or a residue; `TextScript` writes for a tokenizer.
    """

    def __init__(self, task: Task, notation: Notation) -> None:
        self.task = task
        if notation == "auto":
            notation = "residues" if task.kind == "residue" else "digits"
        self.notation = notation
        if notation == "residues" and task.kind != "residue":
            raise UserError(f"{task.name} cannot be written in residues; use digits")
        if notation == "reversed" and (task.kind == "text" or getattr(task, "figures", 0) > 0):
            raise UserError(f"reversed digits need plain numbers; {task.name} is not written so")
        if notation == "residues":
            symbols = [str(i) for i in range(task.symbols)]
        else:
            symbols = self._characters()
        self.vocabulary: tuple[str, ...] = (*MARKS, *symbols)
        self._number = {c: i + len(MARKS) for i, c in enumerate(symbols)}
        #: The token of each mark.
        self.marks: tuple[int, ...] = tuple(range(len(MARKS)))

    @property
    def size(self) -> int:
        """Number of tokens there are."""
        return len(self.vocabulary)

    @property
    def residues(self) -> bool:
        """One token a value, rather than one a character."""
        return self.notation == "residues"

    def _characters(self) -> list[str]:
        characters = set("0123456789")
        if self.task.kind == "text":
            table = self.task.table  # type: ignore[attr-defined]
            for column in (table.problems, table.answers, table.traces):
                for text in column if column is not None else ():
                    characters.update(text)
        else:
            characters.update(",", self.task.operator)
            if getattr(self.task, "figures", 0):
                characters.update(".e+")
        return sorted(characters, key=lambda c: (not c.isdecimal(), c))

    # --- writing -----------------------------------------------------------------------------------------
    def mark(self, mark: int, where: NDArray[np.bool_]) -> Tokens:
        """(problem,) -> (problem, 1): the mark, where there is anything to mark."""
        return np.where(where, self.marks[mark], BLANK).astype(np.int32)[:, None]

    def value(self, values: Any) -> Tokens:
        """(problem,) -> (problem, token). BLANK values leave the row empty."""
        if self.residues:
            return np.where(values == BLANK, BLANK, values + len(MARKS)).astype(np.int32)[:, None]
        if values.dtype == object or getattr(self.task, "figures", 0):
            return self._text([self._spelt(v) for v in values])
        width = len(str(int(values.max(initial=0))))
        powers = 10 ** np.arange(width - 1, -1, -1, dtype=np.int64)
        # Leading zeros are left out, but for the last digit.
        written = (values[:, None] >= powers) | (powers == 1)
        digits = values[:, None] // powers % 10 + self._number["0"]
        digits = np.where(written & (values != BLANK)[:, None], digits, BLANK).astype(np.int32)
        return digits[:, ::-1] if self.notation == "reversed" else digits

    def values(self, values: Any) -> list[Tokens]:
        """(problem, value) -> the values one after another, with commas between them in digits."""
        parts: list[Tokens] = []
        for i in range(values.shape[1]):
            column = values[:, i]
            if i and not self.residues:
                parts.append(self.character(",", self.there(column)))
            parts.append(self.value(column))
        return parts

    def problem(self, problems: Problems) -> list[Tokens]:
        """The problem as the prompt begins."""
        if self.task.kind == "text":
            return [self._text(self.task.texts(problems.x))]  # type: ignore[attr-defined]
        return self.values(problems.x)

    def character(self, character: str, where: NDArray[np.bool_]) -> Tokens:
        """(problem,) -> (problem, 1)"""
        return np.where(where, self._number[character], BLANK).astype(np.int32)[:, None]

    def there(self, values: Any) -> NDArray[np.bool_]:
        return np.array([not (isinstance(v, int) and v == BLANK) for v in values]) if values.dtype == object else (
            np.asarray(values != BLANK)
        )  # fmt: skip

    def _spelt(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        if value == BLANK:
            return ""
        text = self.task.spell(int(value))
        return text[::-1] if self.notation == "reversed" else text

    def _text(self, texts: Sequence[str]) -> Tokens:
        out = np.full((len(texts), max(map(len, texts), default=0)), BLANK, np.int32)
        for row, text in zip(out, texts, strict=True):
            row[: len(text)] = [self._number[c] for c in text]
        return out

    # --- reading -----------------------------------------------------------------------------------------
    def text(self, tokens: Sequence[int]) -> str:
        """Tokens as a person reads them; residues are set apart by spaces."""
        words = [self.vocabulary[t] for t in tokens if t != BLANK]
        return (" " if self.residues else "").join(words)

    def numbers(self, tokens: Sequence[int]) -> list[int] | None:
        """What a run of tokens means as numbers (set apart by commas in digits), or None."""
        if not self.residues:
            return self.read(self.text(tokens))
        read = [int(t) - len(MARKS) for t in tokens]
        return read if read and min(read) >= 0 else None

    def read(self, text: str) -> list[int] | None:
        """``"5,9"`` -> [5, 9], or None for what is no list of numbers."""
        found = []
        for part in text.split(","):
            part = part[::-1] if self.notation == "reversed" else part
            value = Decimal(part) if _NUMBER.fullmatch(part) else None
            if value is None or value != value.to_integral_value():
                return None
            found.append(int(value))
        return found

    def same(self, answer: Sequence[int], expected: Sequence[int]) -> bool:
        """Is it the expected answer?"""
        return list(answer) == list(expected)


def assemble(blocks: Sequence[Block], answers: Tokens, steps: NDArray[np.int64], end: int = END) -> Encoded:
    """Blocks side by side, with the blanks squeezed out of each row. end: the token that fills rows up."""
    wide = np.concatenate([b.tokens for b in blocks], axis=1)
    own = np.concatenate([np.full(b.tokens.shape[1], b.role == "own") for b in blocks])
    prompt = np.concatenate([np.full(b.tokens.shape[1], b.role == "problem") for b in blocks])
    part = np.concatenate([np.full(b.tokens.shape[1], b.part, np.int8) for b in blocks])
    there = wide != BLANK
    order = np.argsort(~there, axis=1, kind="stable")[:, : max(int(there.sum(1).max(initial=1)), 1)]
    there_now = np.take_along_axis(there, order, axis=1)
    tokens = np.where(there_now, np.take_along_axis(wide, order, axis=1), end)
    return Encoded(
        tokens=tokens.astype(np.int32),
        loss=own[order] & there_now,
        prompt=(there & prompt).sum(1),
        steps=np.maximum(steps, 1),
        answers=answers,
        parts=np.where(there_now, part[order], Part.END).astype(np.int8),
    )
