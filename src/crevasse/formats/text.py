"""Text for a pretrained tokenizer: the same documents, written as a language model reads them."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crevasse.errors import UserError
from crevasse.formats.script import ANSWER, CALL, END, EQUALS, FILLER, MARKS, NEXT, UNREADABLE, Script, Tokens
from crevasse.tasks import BLANK, Problems, Task
from crevasse.tokenizer import Tokenizer

#: The call of the tool, by what it computes.
_CALLS = {"*": "<multiply>", "+": "<add>"}


class TextScript(Script):
    """Problems as short sentences, numbers in digits, a line a step: ``20!=20*19<multiply>380``.

    Values and marks are handed to the tokenizer one by one, so that no token reaches from one into the next:
    what a model reads while it runs freely is what it was trained on, whoever wrote it.
    """

    def __init__(self, task: Task, tokenizer: Tokenizer, pad: int = 0) -> None:
        self.task, self.notation, self._pad = task, "text", pad
        self.vocabulary = ()
        self._tokenizer = tokenizer
        self._encode = cache(lambda text: tuple(tokenizer.encode(text)))
        texts = list(MARKS)
        texts[EQUALS] = "\n" if task.kind == "text" else "="
        texts[ANSWER], texts[CALL], texts[NEXT] = "####", _CALLS.get(task.operator, "<call>"), "\n"
        texts[UNREADABLE], texts[FILLER] = "?", "."
        self.marks = tuple(tokenizer.end if i == END else tokenizer.token(text) for i, text in enumerate(texts))

    @property
    def size(self) -> int:
        return self._tokenizer.size

    @property
    def merged_digits(self) -> str | None:
        """A number below 1000 of which several digits are one token, or None: then every digit is a token."""
        return next((n for n in map(str, range(10, 1000)) if len(self._encode(n)) < len(n)), None)

    def instructions(self) -> list[int]:
        """The task in a sentence. Raises UserError for a task that has none."""
        if not self.task.sentence:
            raise UserError(f"{self.task.name} has no instructions: nothing says in a sentence what is asked")
        return [*self._encode(self.task.sentence), self.marks[NEXT]]

    def value(self, values: Any) -> Tokens:
        return self._text([self._spelt(v) for v in values])

    def problem(self, problems: Problems) -> list[Tokens]:
        if self.task.kind == "text":
            return [self._text(self.task.texts(problems.x))]  # type: ignore[attr-defined]
        return [self._text([self.task.phrase(x, self._spelt) for x in problems.x])]

    def _spelt(self, value: Any) -> str:
        text = super()._spelt(value)
        return text.zfill(self._pad) if text.isdecimal() else text

    def character(self, character: str, where: NDArray[np.bool_]) -> Tokens:
        return self._text([character if w else "" for w in where])

    def _text(self, texts: Sequence[str]) -> Tokens:
        rows = [self._encode(t) if t else () for t in texts]
        out = np.full((len(rows), max(map(len, rows), default=0)), BLANK, np.int32)
        for line, row in zip(out, rows, strict=True):
            line[: len(row)] = row
        return out

    def text(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode([t for t in tokens if t != BLANK])

    def same(self, answer: Sequence[int], expected: Sequence[int]) -> bool:
        """Are the texts equal, but for spaces around them? A text may be cut into tokens in several ways."""
        return self.text(answer).strip() == self.text(expected).strip()
