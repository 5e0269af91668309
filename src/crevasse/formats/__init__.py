"""How problems and answers are written: tokens, loss masks, free running and its tool."""

from crevasse.formats.base import Format
from crevasse.formats.script import Encoded, Script
from crevasse.spec import Entry, Table

FORMATS: Table[Format] = Table(
    "format",
    {
        "direct": Entry("crevasse.formats.direct:Direct", "the problem, then the answer"),
        "filler": Entry("crevasse.formats.direct:Filler", "empty tokens between problem and answer"),
        "trace": Entry("crevasse.formats.trace:Trace", "a chain of thought: every running state is written"),
        "tool": Entry("crevasse.formats.trace:Tool", "a chain of thought whose results a calculator writes"),
    },
)

__all__ = ["FORMATS", "Encoded", "Format", "Script"]
