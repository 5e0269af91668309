"""What a format is: it turns problems into documents, and a model's free running back into answers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray

from crevasse.errors import UserError
from crevasse.formats.script import (
    ANSWER,
    CALL,
    END,
    EQUALS,
    NEXT,
    Block,
    Encoded,
    Notation,
    Part,
    Role,
    Script,
    assemble,
)
from crevasse.formats.text import TextScript
from crevasse.spec import Named, require
from crevasse.tasks import BLANK, Problems, Task
from crevasse.tokenizer import Tokenizer


@dataclass(frozen=True)
class Format(Named, ABC):
    """Base of all formats."""

    #: Does the document spell out steps, so that the answer stands behind a mark?
    spelt_out: ClassVar[bool] = False
    #: Does a calculator answer the calls?
    tool: ClassVar[bool] = False

    notation: Notation = "auto"  # residues, digits, reversed digits or text; auto: what task and model are made for
    instructions: bool = False  # text: a sentence that says what is asked stands before the problem
    pad: int = 0  # text: numbers have at least so many digits, with zeros in front
    shots: int = 0  # text: as many solved training problems stand before the problem

    def __post_init__(self) -> None:
        require(self.notation in get_args(Notation), f"unknown notation {self.notation!r}")
        require(0 <= self.shots <= 1000, f"shots must lie between 0 and 1000, not {self.shots}")
        require(0 <= self.pad <= 100, f"pad must lie between 0 and 100 digits, not {self.pad}")

    def script(self, task: Task, tokenizer: Tokenizer | None = None) -> Script:
        """The alphabet for a task, or its text for a tokenizer. Raises UserError where they do not go together."""
        if tokenizer is None:
            require(self.notation != "text", "text is written for a pretrained model, whose tokenizer reads it")
            require(
                not (self.instructions or self.shots or self.pad),
                "instructions, shots and pad are for text, which a pretrained model reads",
            )
            return Script(task, self.notation)
        require(
            self.notation in ("auto", "text"),
            f"a pretrained model reads text, not {self.notation} (leave notation out)",
        )
        return TextScript(task, tokenizer, self.pad)

    @abstractmethod
    def body(self, script: Script, problems: Problems) -> list[Block]:
        """What stands between the problem and the answer."""

    def preamble(self, script: Script, train: Problems) -> list[int]:
        """What stands before every problem: instructions, and solved problems spread over the training set."""
        tokens: list[int] = []
        if self.instructions and isinstance(script, TextScript):
            tokens += script.instructions()
        if self.shots:
            require(
                self.shots <= len(train),
                f"{self.shots} shots were asked for, but there are {len(train)} training problems",
            )
            chosen = np.linspace(0, len(train) - 1, self.shots).round().astype(np.int64)
            solved = self.encode(script, train.take(chosen))
            for row, length in zip(solved.tokens.tolist(), solved.lengths, strict=True):
                tokens += row[:length]
        return tokens

    def encode(self, script: Script, problems: Problems, preamble: Sequence[int] = ()) -> Encoded:
        """Documents of some problems, ready to train on. preamble: tokens that stand before each of them."""
        before = np.tile(np.array(preamble, np.int32), (len(problems), 1))
        everywhere = np.ones(len(problems), bool)
        blocks = [Block(t, "problem", Part.PROBLEM) for t in (before, *script.problem(problems))]
        if self.spelt_out or not script.residues:  # residues: the last symbol of the problem asks already
            blocks.append(Block(script.mark(EQUALS, everywhere), "problem", Part.PROBLEM))
        blocks += self.body(script, problems)
        if self.spelt_out:
            blocks.append(Block(script.mark(ANSWER, everywhere), "own", Part.ANSWER))
        written = [Block(t, "own", Part.ANSWER) for t in script.values(problems.solution.answers)]
        blocks += written
        if not self.fixed_width(script):
            blocks.append(Block(script.mark(END, everywhere), "own", Part.END))
        alone = assemble(written, np.zeros((0, 0), np.int32), _ones(problems))
        answers = np.where(alone.loss, alone.tokens, BLANK)
        return assemble(blocks, answers, count_steps(problems), script.marks[END])

    def fixed_width(self, script: Script) -> bool:
        """Do answers end by their length, without an end mark?"""
        return script.residues and not self.spelt_out

    def ceiling(self, script: Script, problems: Problems) -> float:
        """The best score of a learner that follows the rule exactly as this format's arithmetic allows."""
        return 1.0

    def answer_tokens(self, script: Script, own: Sequence[int], width: int) -> list[int] | None:
        """The answer in what the model wrote after the prompt, or None where it gave none. width: see `encode`."""
        if self.fixed_width(script):
            return list(own[:width]) if len(own) >= width else None
        end, mark = script.marks[END], script.marks[ANSWER]
        if end not in own:
            return None
        own = list(own[: list(own).index(end)])
        if self.spelt_out:
            return own[own.index(mark) + 1 :] if mark in own else None
        return own


def count_steps(problems: Problems) -> NDArray[np.int64]:
    """Steps of the recursion in each problem. (problem,)"""
    s = problems.solution
    if s.operands is not None:
        return np.asarray((s.operands[:, :, 0] != BLANK).sum(1))
    return _ones(problems)


def _ones(problems: Problems) -> NDArray[np.int64]:
    return np.ones(len(problems), np.int64)


def steps_as_states(script: Script, states: Any) -> list[Block]:
    """states (problem, step + 1, value) -> ``20;60;120;``: the start is in the problem and is not repeated."""
    blocks = []
    for t in range(1, states.shape[1]):
        blocks += [Block(b, "own", Part.RESULT) for b in script.values(states[:, t])]
        if not script.residues:
            blocks.append(Block(script.mark(NEXT, script.there(states[:, t, 0])), "own", Part.MARK))
    return blocks


def steps_as_calls(script: Script, states: Any, operands: Any, *, tool: bool, chain: bool = False) -> list[Block]:
    """``5*4=20;20*3=60;``; with the tool ``5*4→20;``, where what follows the arrow is given and has no loss.

    chain: ``*4=20*3=60``, as on a pocket calculator: the display shows the start, which belongs to the problem, and
    each step begins with the result that stands there.
    """
    task = script.task
    if task.call_widths is None or operands is None:
        raise UserError(f"{task.name} has no steps that can be written as calls")
    right = task.call_widths[1]
    mark, role = (CALL, "given") if tool else (EQUALS, "own")
    blocks: list[Block] = []

    def put(parts: Sequence[Any], role: Role, part: Part) -> None:
        blocks.extend(Block(p, role, part) for p in parts)

    if chain:
        put(script.values(states[:, 0]), "problem", Part.PROBLEM)
    for t in range(1, states.shape[1]):
        live = script.there(states[:, t, 0])
        if not chain:
            put(script.values(np.where(live[:, None], states[:, t - 1], BLANK)), "own", Part.STATE)
        if not script.residues:
            put([script.character(task.operator, live)], "own", Part.MARK)
        put(script.values(operands[:, t - 1, :right]), "own", Part.OPERAND)
        put([script.mark(mark, live)], "own", Part.MARK)
        put(script.values(states[:, t]), role, Part.RESULT)  # type: ignore[arg-type]
        if not script.residues and not chain:
            put([script.mark(NEXT, live)], role, Part.MARK)  # type: ignore[arg-type]
    return blocks


def needs_trace(task: Task, problems: Problems, name: str) -> Any:
    """The states of the problems. Raises UserError for a task without a trace."""
    if problems.solution.states is None:
        raise UserError(f"{task.name} has no trace, so it cannot be written in the format {name!r}")
    return problems.solution.states
