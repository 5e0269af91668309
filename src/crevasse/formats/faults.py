"""Where a written trace first goes wrong, and at what: copying, the operand, the result, or stopping."""

from dataclasses import dataclass
from typing import Literal

from crevasse.formats.generate import Output
from crevasse.formats.script import ANSWER, END, Encoded, Part, Script

#: For n!, a wrong operand is a wrong decrement and a wrong result a wrong multiplication.
Kind = Literal["start", "copying", "operand", "result", "stopping", "form", "answer"]

_KINDS: dict[int, Kind] = {
    Part.STATE: "copying", Part.OPERAND: "operand", Part.RESULT: "result", Part.MARK: "form", Part.ANSWER: "answer",
    Part.END: "answer",
}  # fmt: skip
_AROUND = 12  # tokens shown on either side


@dataclass(frozen=True)
class Fault:
    """The first token that is not the document's."""

    kind: Kind
    token: int  # its place in what was written, from 0
    expected: str  # a few tokens from there on, as they should be
    written: str  # and as they are


def first_fault(script: Script, encoded: Encoded, row: int, output: Output) -> Fault | None:
    """Where output departs from document `row`; None where it is the document.

    start: the first state is wrong; copying: a later one; operand, result: of a step; stopping: the trace ends too
    early or goes on too long; answer: the trace is right and the answer is not; form: anything else.
    """
    begin, end = int(encoded.prompt[row]), int(encoded.lengths[row])
    wanted = encoded.tokens[row, begin:end].tolist()
    parts = encoded.parts[row, begin:end].tolist()
    own = list(output.tokens)
    at = next((i for i, (a, b) in enumerate(zip(wanted, own, strict=False)) if a != b), min(len(wanted), len(own)))
    if at == len(wanted):
        return None
    marks = (script.marks[ANSWER], script.marks[END])
    said = own[at] if at < len(own) else None
    part = parts[at]
    begins = at == 0 or parts[at - 1] != part  # the first token of its part
    if part != Part.ANSWER and said in marks:
        kind: Kind = "stopping" if part != Part.END else "answer"
    elif part == Part.ANSWER and begins and Part.RESULT in parts:
        kind = "stopping"  # the mark before the answer was due, and the trace goes on
    elif part == Part.STATE and Part.RESULT not in parts[:at]:
        kind = "start"
    else:
        kind = _KINDS[part]
    return Fault(kind, at, script.text(wanted[at : at + _AROUND]), script.text(own[at : at + _AROUND]))
