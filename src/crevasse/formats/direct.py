"""Question, answer."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from crevasse.formats.base import Format, count_steps
from crevasse.formats.script import FILLER, Block, Part, Script
from crevasse.spec import require
from crevasse.tasks import BLANK, Problems


@dataclass(frozen=True)
class Direct(Format):
    """The problem, then the answer."""

    name: ClassVar[str] = "direct"

    def body(self, script: Script, problems: Problems) -> list[Block]:
        return []


@dataclass(frozen=True)
class Filler(Format):
    """The problem, then empty tokens (room to compute, but nothing spelt out), then the answer.

    After Pfau, Merrill, Bowman 2024, "Let's think dot by dot".
    """

    name: ClassVar[str] = "filler"

    tokens: int = 0  # filler tokens; 0 gives as many as the problem has steps

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.tokens <= 1000, f"tokens of filler must lie between 0 and 1000, not {self.tokens}")

    def body(self, script: Script, problems: Problems) -> list[Block]:
        count = np.full(len(problems), self.tokens) if self.tokens else np.maximum(count_steps(problems), 1)
        dots = np.where(np.arange(count.max(initial=1)) < count[:, None], script.marks[FILLER], BLANK)
        return [Block(dots.astype(np.int32), "problem", Part.PROBLEM)]
