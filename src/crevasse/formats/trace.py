"""Chain of thought: the steps are written out, by the model alone or with a calculator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from crevasse.errors import UserError
from crevasse.formats.base import Format, needs_trace, steps_as_calls, steps_as_states
from crevasse.formats.script import CALL, EQUALS, NEXT, UNREADABLE, Block, Part, Script
from crevasse.spec import require
from crevasse.tasks import BLANK, Problems, Task
from crevasse.tokenizer import Tokenizer

Arithmetic = Literal["exact", "rounded"]


#: The calculator's limit: no task comes near it, but a model that multiplies on and on does.
_OVERFLOW = 10**1000


@dataclass(frozen=True)
class _SpeltOut(Format):
    """What trace and tool share: an arithmetic, and its ceiling."""

    spelt_out: ClassVar[bool] = True

    arithmetic: Arithmetic = "exact"  # rounded: each step goes on from the figures that were written (the thesis)

    def script(self, task: Task, tokenizer: Tokenizer | None = None) -> Script:
        script = super().script(task, tokenizer)
        if self.arithmetic == "rounded":
            require(
                bool(getattr(task, "figures", 0)),
                f"{task.name} writes every figure: there is nothing to round",
            )
        return script

    def _states(self, script: Script, problems: Problems) -> Any:
        states = needs_trace(script.task, problems, self.name)
        if self.arithmetic == "exact":
            return states
        return script.task.solve(problems.x, rounded=True).states

    def ceiling(self, script: Script, problems: Problems) -> float:
        if self.arithmetic == "exact":
            return 1.0
        rounded = script.task.solve(problems.x, rounded=True).answers[:, 0]
        right = [
            script.task.spell(a) == script.task.spell(b)
            for a, b in zip(rounded, problems.solution.answers[:, 0], strict=True)
        ]
        return float(np.mean(right))


@dataclass(frozen=True)
class Trace(_SpeltOut):
    """The problem, the running states, the answer: a chain of thought."""

    name: ClassVar[str] = "trace"

    steps: Literal["auto", "states", "calls", "chain"] = "auto"  # 60;120; or 20*3=60;60*2=120; or *3=60*2=120

    def body(self, script: Script, problems: Problems) -> list[Block]:
        states = self._states(script, problems)
        if script.task.kind == "text":
            blocks = [Block(script.value(states[:, 0, 0]), "own", Part.RESULT)]
            if script.notation == "text":  # a line of its own, as a language model would write it
                blocks.append(Block(script.mark(NEXT, np.ones(len(problems), bool)), "own", Part.MARK))
            return blocks
        has_calls = script.task.call_widths is not None
        if self.steps in ("calls", "chain") or (self.steps == "auto" and not script.residues and has_calls):
            operands = problems.solution.operands
            return steps_as_calls(script, states, operands, tool=False, chain=_chained(self.steps, script))
        return steps_as_states(script, states)


@dataclass(frozen=True)
class Tool(_SpeltOut):
    """A chain of thought in which a calculator writes the result of each step."""

    name: ClassVar[str] = "tool"
    tool: ClassVar[bool] = True

    steps: Literal["calls", "chain"] = "calls"  # 20*3→60;60*2→120; or *3→60*2→120, as on a pocket calculator

    def body(self, script: Script, problems: Problems) -> list[Block]:
        if script.task.call_widths is None:
            raise UserError(f"{script.task.name} has no steps for a tool; formats that fit: direct, filler, trace")
        states = self._states(script, problems)
        operands = problems.solution.operands
        return steps_as_calls(script, states, operands, tool=True, chain=_chained(self.steps, script))


def _chained(steps: str, script: Script) -> bool:
    """Raises UserError where steps cannot be chained."""
    if steps != "chain":
        return False
    require(not script.residues, "steps can be chained in digits and text; residues have no operator to go on with")
    require(script.task.call_widths == (1, 1), f"the steps of {script.task.name} take more than the last result")
    return True


class Calculator:
    """Answers the calls of one row while the model runs freely.

    Exact arithmetic works like a pocket calculator's memory: the display shows a rounded number, but a call
    that begins with what was displayed goes on with all its digits.
    """

    def __init__(self, script: Script, x: Any, form: "Tool") -> None:
        self._script, self._x = script, x
        self._exact = form.arithmetic == "exact"
        self._chain = form.steps == "chain"
        #: What was displayed -> the number behind it.
        self._memory: dict[str, int] = {}
        self._display = ""
        if self._chain:
            start = script.task.solve(x[None]).states
            assert start is not None  # a chain is made of states
            self._show([int(v) for v in start[0, 0]])
        self._seen = 0  # tokens up to the end of the last result
        #: Calls that could not be read, as the model wrote them.
        self.unreadable: list[str] = []

    def answer(self, own: Sequence[int]) -> list[int]:
        """own: what the model wrote after the prompt, up to and with the call mark -> tokens of the result.

        A call that cannot be read gets the token ``?`` and is kept in `unreadable`.
        """
        script = self._script
        call = self._call(list(own[:-1]))
        arguments = self._arguments(call)
        result = None if arguments is None else script.task.call(arguments, self._x)
        if result is None or max(map(abs, result)) >= _OVERFLOW:
            self.unreadable.append(script.text(call))
            tokens = [script.marks[UNREADABLE]]
            self._display = ""
        else:
            tokens = self._show(result)
        tokens = tokens if script.residues or self._chain else [*tokens, script.marks[NEXT]]
        self._seen = len(own) + len(tokens)
        return tokens

    def _show(self, result: list[int]) -> list[int]:
        """The tokens of a result, which the display keeps."""
        script = self._script
        values = np.array([result], dtype=object if not script.residues else np.int64)
        tokens = [int(t) for part in script.values(values) for t in part[0] if t != BLANK]
        if len(result) == 1:
            self._display = script.text(tokens)
            self._memory[self._display] = result[0]
        return tokens

    def _call(self, before: list[int]) -> list[int]:
        """The tokens of the call: in residues a fixed number, in digits all since the last result."""
        if self._script.residues:
            left, right = self._script.task.call_widths or (0, 0)
            start = max(len(before) - left - right, 0)
        else:
            breaks = {self._script.marks[m] for m in (NEXT, EQUALS, CALL)}
            start = max((i + 1 for i, t in enumerate(before) if t in breaks), default=0)
            start = max(start, min(self._seen, len(before)))
        return before[start:]

    def _arguments(self, call: list[int]) -> list[int] | None:
        script = self._script
        left, right = script.task.call_widths or (0, 0)
        if script.residues:
            numbers = script.numbers(call)
            return numbers if numbers is not None and len(numbers) == left + right else None
        sides = script.text(call).split(script.task.operator)
        if len(sides) != 2:
            return None
        if self._chain and not sides[0] and self._display:
            sides[0] = self._display
        numbers = []
        for side, width in zip(sides, (left, right), strict=True):
            if width == 1 and self._exact and side in self._memory:
                numbers.append(self._memory[side])
                continue
            read = script.read(side) if width else ([] if not side else None)
            if read is None or len(read) != width:
                return None
            numbers += read
        return numbers
