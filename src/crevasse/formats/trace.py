"""Chain of thought: the steps are written out, by the model alone or with a calculator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from crevasse.errors import UserError
from crevasse.formats.base import Format, needs_trace, steps_as_calls, steps_as_states
from crevasse.formats.script import CALL, EQUALS, NEXT, UNREADABLE, Block, Notation, Script
from crevasse.spec import require
from crevasse.tasks import BLANK, Problems, Task

Arithmetic = Literal["exact", "rounded"]


#: The calculator's limit: no task comes near it, but a model that multiplies on and on does.
_OVERFLOW = 10**1000


class _SpeltOut(Format):
    """What trace and tool share: an arithmetic, and its ceiling."""

    spelt_out = True
    arithmetic: Arithmetic

    def script(self, task: Task) -> Script:
        script = super().script(task)
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

    notation: Notation = "auto"  # residues, digits or reversed digits; auto takes what the task is made for
    steps: Literal["auto", "states", "calls"] = "auto"  # 20;60; or 5*4=20;20*3=60; (auto: calls in digits)
    arithmetic: Arithmetic = "exact"  # rounded: each product goes on from the figures that were written

    def body(self, script: Script, problems: Problems) -> list[Block]:
        states = self._states(script, problems)
        if script.task.kind == "text":
            return [Block(script.value(states[:, 0, 0]), "own")]
        has_calls = script.task.call_widths is not None
        if self.steps == "calls" or (self.steps == "auto" and not script.residues and has_calls):
            return steps_as_calls(script, states, problems.solution.operands, tool=False)
        return steps_as_states(script, states)


@dataclass(frozen=True)
class Tool(_SpeltOut):
    """A chain of thought in which a calculator writes the result of each step."""

    name: ClassVar[str] = "tool"
    tool: ClassVar[bool] = True

    notation: Notation = "auto"  # residues, digits or reversed digits; auto takes what the task is made for
    arithmetic: Arithmetic = "exact"  # rounded: the calculator sees only the figures that were written (thesis)

    def body(self, script: Script, problems: Problems) -> list[Block]:
        if script.task.call_widths is None:
            raise UserError(f"{script.task.name} has no steps for a tool; formats that fit: direct, filler, trace")
        states = self._states(script, problems)
        return steps_as_calls(script, states, problems.solution.operands, tool=True)


class Calculator:
    """Answers the calls of one row while the model runs freely.

    Exact arithmetic works like a pocket calculator's memory: the display shows a rounded number, but a call
    that begins with what was displayed goes on with all its digits.
    """

    def __init__(self, script: Script, x: Any, arithmetic: Arithmetic) -> None:
        self._script, self._x = script, x
        self._exact = arithmetic == "exact"
        self._memory: dict[tuple[int, ...], int] = {}
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
            tokens = [UNREADABLE]
        else:
            values = np.array([result], dtype=object if not script.residues else np.int64)
            written = [t[0] for t in script.values(values)]
            tokens = [int(t) for part in written for t in part if t != BLANK]
            if len(result) == 1:
                self._memory[tuple(tokens)] = result[0]
        return tokens if script.residues else [*tokens, NEXT]

    def _call(self, before: list[int]) -> list[int]:
        """The tokens of the call: in residues a fixed number, in digits all since the last step."""
        if self._script.residues:
            left, right = self._script.task.call_widths or (0, 0)
            start = max(len(before) - left - right, 0)
        else:
            start = max((i + 1 for i, t in enumerate(before) if t in (NEXT, EQUALS, CALL)), default=0)
        return before[start:]

    def _arguments(self, call: list[int]) -> list[int] | None:
        script = self._script
        left, right = script.task.call_widths or (0, 0)
        if script.residues:
            numbers = script.numbers(call)
            return numbers if numbers is not None and len(numbers) == left + right else None
        if call.count(script.operator()) != 1:  # the + of an exponent is no operator of a product
            return None
        sides = script.split(call, script.operator())
        numbers = []
        for side, width in zip(sides, (left, right), strict=True):
            if width == 1 and self._exact and tuple(side) in self._memory:
                numbers.append(self._memory[tuple(side)])
                continue
            read = script.numbers(side) if width else ([] if not side else None)
            if read is None or len(read) != width:
                return None
            numbers += read
        return numbers
