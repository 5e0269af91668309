"""What a format is: it turns problems into documents, and a model's free running back into answers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

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
    Role,
    Script,
    assemble,
)
from crevasse.spec import Named
from crevasse.tasks import BLANK, Problems, Task


class Format(Named, ABC):
    """Base of all formats: frozen dataclasses with a `notation`."""

    notation: Notation
    #: Does the document spell out steps, so that the answer stands behind a mark?
    spelt_out: ClassVar[bool] = False
    #: Does a calculator answer the calls?
    tool: ClassVar[bool] = False

    def script(self, task: Task) -> Script:
        """The alphabet for a task. Raises UserError where format and task do not go together."""
        return Script(task, self.notation)

    @abstractmethod
    def body(self, script: Script, problems: Problems) -> list[Block]:
        """What stands between the problem and the answer."""

    def encode(self, script: Script, problems: Problems) -> Encoded:
        """Documents of some problems, ready to train on."""
        blocks = [Block(t, "problem") for t in script.problem(problems)]
        everywhere = np.ones(len(problems), bool)
        if self.spelt_out or not script.residues:  # residues: the last symbol of the problem asks already
            blocks.append(Block(script.mark(EQUALS, everywhere), "problem"))
        blocks += self.body(script, problems)
        if self.spelt_out:
            blocks.append(Block(script.mark(ANSWER, everywhere), "own"))
        written = script.values(problems.solution.answers)
        blocks += [Block(t, "own") for t in written]
        if not self.fixed_width(script):
            blocks.append(Block(script.mark(END, everywhere), "own"))
        answers = assemble([Block(t, "own") for t in written], np.zeros((0, 0), np.int32), _ones(problems))
        return assemble(blocks, np.where(answers.loss, answers.tokens, BLANK), count_steps(problems))

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
        if END not in own:
            return None
        own = list(own[: list(own).index(END)])
        if self.spelt_out:
            return own[own.index(ANSWER) + 1 :] if ANSWER in own else None
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
        blocks += [Block(b, "own") for b in script.values(states[:, t])]
        if not script.residues:
            blocks.append(Block(script.mark(NEXT, script.there(states[:, t, 0])), "own"))
    return blocks


def steps_as_calls(script: Script, states: Any, operands: Any, tool: bool) -> list[Block]:
    """``5*4=20;20*3=60;``; with the tool ``5*4→20;``, where what follows the arrow is given and has no loss."""
    task = script.task
    if task.call_widths is None or operands is None:
        raise UserError(f"{task.name} has no steps that can be written as calls")
    right = task.call_widths[1]
    mark, role = (CALL, "given") if tool else (EQUALS, "own")
    blocks: list[Block] = []

    def put(parts: Sequence[Any], role: Role) -> None:
        blocks.extend(Block(p, role) for p in parts)

    for t in range(1, states.shape[1]):
        live = script.there(states[:, t, 0])
        put(script.values(np.where(live[:, None], states[:, t - 1], BLANK)), "own")
        if not script.residues:
            put([script.character(task.operator, live)], "own")
        put(script.values(operands[:, t - 1, :right]), "own")
        put([script.mark(mark, live)], "own")
        put(script.values(states[:, t]), role)  # type: ignore[arg-type]
        if not script.residues:
            put([script.mark(NEXT, live)], role)  # type: ignore[arg-type]
    return blocks


def needs_trace(task: Task, problems: Problems, name: str) -> Any:
    """The states of the problems. Raises UserError for a task without a trace."""
    if problems.solution.states is None:
        raise UserError(f"{task.name} has no trace, so it cannot be written in the format {name!r}")
    return problems.solution.states
