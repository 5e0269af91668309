"""A config's problems as documents, and documents as the tensors that training reads."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from crevasse.config import TrialConfig
from crevasse.formats import Encoded, Format, Script
from crevasse.formats.generate import token_limit
from crevasse.formats.script import MARKS
from crevasse.formats.text import TextScript
from crevasse.rules.changes import Change, Values
from crevasse.tasks import Problems, make_splits

#: A pass reads all weights and adds up a gradient for each; that costs about as much as so many tokens.
PASS_TOKENS = 64


@dataclass(frozen=True)
class Rows:
    """Documents as tensors."""

    tokens: Tensor  # (row, position) int32
    loss: Tensor  # (row, position) bool
    steps: Tensor  # (row,)
    lengths: Tensor  # (row,)
    first: int  # no column up to this one carries loss in any row
    answers: Tensor | None = None  # (row, position) what is to be written, where that is not the tokens themselves

    @classmethod
    def of(cls, encoded: Encoded) -> "Rows":
        targets = encoded.loss.any(0)
        return cls(
            torch.from_numpy(encoded.tokens),
            torch.from_numpy(encoded.loss),
            torch.from_numpy(encoded.steps),
            torch.from_numpy(encoded.lengths),
            int(targets.argmax()) - 1,
        )

    @cached_property
    def ragged(self) -> bool:
        return bool((self.lengths != self.tokens.shape[1]).any())

    @cached_property
    def columns(self) -> tuple[int, ...] | None:
        """The columns that carry loss, where they are the same in all rows; else None."""
        common = self.loss[0]
        return tuple(common.nonzero().flatten().tolist()) if bool((self.loss == common).all()) else None

    @cached_property
    def targets(self) -> Tensor:
        """(row,) positions with loss"""
        return self.loss.sum(1)

    def pick(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, int, Tensor | None]:
        """The arguments of `losses` after the model: padding that no picked row needs is cut off."""
        end = int(self.lengths[rows].max()) if self.ragged else self.tokens.shape[1]
        answers = None if self.answers is None else self.answers[rows, :end].long()
        return self.tokens[rows, :end].long(), self.loss[rows, :end], self.steps[rows], self.first, answers

    def swapped(self, rows: Tensor, share: float, generator: torch.Generator) -> "Rows":
        """These rows alone, a share of which are asked for the answer of another one of them.

        Where an answer is longer than the other's, the rest of it stays as it is. What stands before is not changed.
        """
        tokens, loss = self.tokens[rows], self.loss[rows]
        chosen = torch.rand(len(rows), generator=generator) < share
        other = torch.randint(1, max(len(rows), 2), (len(rows),), generator=generator) + torch.arange(len(rows))
        other %= len(rows)
        swap = chosen[:, None] & loss & loss[other]
        answers = torch.where(swap, tokens[other], tokens)
        return Rows(tokens, loss, self.steps[rows], self.lengths[rows], self.first, answers)

    @cached_property
    def lowest(self) -> int:
        """The lowest token that is not there to fill a row up."""
        return int(self.tokens[torch.arange(self.tokens.shape[1]) < self.lengths[:, None]].min())

    @cached_property
    def values(self) -> Values | None:
        """What they say, from the lowest value that occurs; None unless it is a value a token and an answer of one."""
        prompt, low = self.lengths[:, None] - 1, self.lowest
        if low < len(MARKS) or bool((self.targets != 1).any()):
            return None
        positions = torch.arange(int(prompt.max()) + 1)
        said = self.tokens[:, : len(positions)].long() - low
        modulus = int(said[positions <= prompt].max()) + 1
        x = torch.where(positions < prompt, said, modulus)[:, :-1]
        return Values(x, said.gather(1, prompt)[:, 0], modulus)

    def changed(self, rows: Tensor, changes: Sequence[Change], generator: torch.Generator) -> "Rows":
        """These rows alone, each moved at random by the changes. Raises ValueError for rows that are no values."""
        if (whole := self.values) is None:
            raise ValueError("these documents are no rows of values that could be changed")
        values = Values(whole.x[rows], whole.answers[rows], whole.modulus)
        for change in changes:
            values = values.drawn(change, generator)
        tokens, lengths, there = self.tokens[rows], self.lengths[rows], values.there
        tokens[:, : there.shape[1]][there] = (values.x[there] + self.lowest).int()
        tokens.scatter_(1, lengths[:, None] - 1, (values.answers[:, None] + self.lowest).int())
        return Rows(tokens, self.loss[rows], self.steps[rows], lengths, self.first)

    def buckets(self, rows: Tensor, chunk: int = 0) -> list[Tensor]:
        """The rows in groups of similar length, none of more than `chunk` tokens (0: no limit) where it can be split.

        A group costs a pass of its own over all weights, as much as some tokens do: splitting one has to save more
        than that, and a quarter of what the group costs.
        """
        if len(rows) < 2:
            return [rows]
        width = int(self.lengths[rows].max())
        at, saved = 0, 0
        if self.ragged:
            lengths, order = self.lengths[rows].sort()
            rows = rows[order]
            count = torch.arange(1, len(rows))
            sizes = count * lengths[:-1] + (len(rows) - count) * lengths[-1]
            at, saved = int(sizes.argmin()) + 1, len(rows) * width - int(sizes.min())
        if saved < PASS_TOKENS or 4 * saved < len(rows) * width:
            if not chunk or len(rows) * width <= chunk:
                return [rows]
            at = len(rows) // 2
        return self.buckets(rows[:at], chunk) + self.buckets(rows[at:], chunk)

    def padded(self, groups: Sequence[Tensor]) -> int:
        """Tokens that go through the model for these groups, padding included."""
        return sum(len(g) * int(self.lengths[g].max()) for g in groups if len(g))


class Data:
    """A config's problems, encoded."""

    def __init__(self, config: TrialConfig) -> None:
        self.tokenizer = config.model.tokenizer()
        self.form, self.script = config.format, config.format.script(config.task, self.tokenizer)
        data_seed = config.seed if config.data_seed is None else config.data_seed
        self.splits = make_splits(
            config.task, config.train, steer=config.steer, held_out=config.held_out, seed=data_seed,
            labels=config.labels, noise=config.noise,
        )  # fmt: skip
        self.preamble = self.form.preamble(self.script, self.splits.train)
        self.train = self.encode(self.splits.train)
        self.validation = self.encode(self.splits.validation)
        self.tests = {name: self.encode(p) for name, p in self.splits.tests.items()}
        #: Loss of guessing uniformly among the tokens that a learner is ever asked to write.
        self.uniform = math.log(max(len(np.unique(self.train.tokens[self.train.loss])), 2))
        #: An answer of fixed width contains no mark, so none is ever written.
        self.silent = len(MARKS) if self.form.fixed_width(self.script) else 0
        self.notes = [*self.splits.notes, *_notes(self.script, self.form)]
        fixed = self.form.fixed_width(self.script)
        self.context = max(token_limit(e, fixed) for e in (self.train, self.validation, *self.tests.values()))
        #: One token an answer: reading it off with the true prompt is the same as running freely.
        self.one_token = self.form.fixed_width(self.script) and self.train.answers.shape[1] == 1

    def split(self, name: str) -> tuple[Encoded, Problems]:
        """Train, validation or a test split, by name."""
        if name in self.tests:
            return self.tests[name], self.splits.tests[name]
        if name == "train":
            return self.train, self.splits.train
        return self.validation, self.splits.validation

    def encode(self, problems: Problems) -> Encoded:
        return self.form.encode(self.script, problems, self.preamble)


def _notes(script: Script, form: Format) -> list[str]:
    """What a reader should know about how the documents are written."""
    notes = []
    if isinstance(script, TextScript) and (merged := script.merged_digits):
        notes.append(
            f"the tokenizer merges digits ({merged} is one token): numbers are words to it, and copying and counting "
            "have to be learnt for each of them"
        )
    if form.shots:
        notes.append(
            f"{form.shots} solved training problems stand before each problem, so the training score counts them"
        )
    return notes


def head(encoded: Encoded, rows: int) -> Encoded:
    """The first rows."""
    return Encoded(*(getattr(encoded, f.name)[:rows] for f in dataclasses.fields(encoded)))
