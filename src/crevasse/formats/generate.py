"""Free-running greedy generation in batches, with a key-value cache, the tool answering inside the loop.

Rows never fall out of step: in each round every row takes one token, either its own or one that is put in
(the rest of a longer prompt, a filler, a tool's result). So prompts of different lengths need no padding, and
what a row writes does not depend on its neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from crevasse.formats.base import Format
from crevasse.formats.script import CALL, END, Encoded, Script
from crevasse.formats.trace import Calculator, Tool
from crevasse.tasks import BLANK


class Decoder(Protocol):
    """What generation needs of a model."""

    def cache(self) -> Any:
        """An empty memory of what was read."""

    def next_logits(self, tokens: Tensor, steps: Tensor, cache: Any) -> Tensor:
        """Read tokens (row, position) after what the cache holds -> logits after the last one. (row, token)"""

    def keep(self, cache: Any, rows: Tensor) -> Any:
        """The memory of these rows alone. rows (kept,)"""


@dataclass(frozen=True)
class Output:
    """What a model wrote for one problem."""

    tokens: tuple[int, ...]  # after the prompt, the tool's results included
    answer: tuple[int, ...] | None  # the tokens of the answer; None where it gave none
    correct: bool
    unreadable: tuple[str, ...] = field(default=())  # calls that the tool could not read, as they were written


def generate(
    model: Decoder,
    form: Format,
    script: Script,
    encoded: Encoded,
    x: Any,
    *,
    rows: int = 256,
    tick: Callable[[], None] | None = None,
) -> list[Output]:
    """One output a problem, in order. encoded, x: the same problems; of `encoded` only the prompts are read,
    and the answers to compare with. rows: problems at a time. tick: called between rounds (for keeping alive).
    """
    limit = token_limit(encoded, form.fixed_width(script))
    outputs: list[Output] = []
    order = np.argsort(encoded.prompt, kind="stable")  # similar lengths together: little waiting
    for start in range(0, len(order), rows):
        outputs += _run(model, form, script, encoded, x, order[start : start + rows], limit, tick)
    back = np.argsort(order, kind="stable")
    return [outputs[i] for i in back]


def token_limit(encoded: Encoded, fixed_width: bool) -> int:
    """The most tokens a document may have when the model runs freely: a quarter more than the longest.

    fixed_width: answers end by their length, so no document can be longer.
    """
    longest = int(encoded.lengths.max(initial=1))
    return longest if fixed_width else longest + longest // 4 + 8


@torch.no_grad()
def _run(
    model: Decoder,
    form: Format,
    script: Script,
    encoded: Encoded,
    x: Any,
    chosen: Any,
    limit: int,
    tick: Callable[[], None] | None,
) -> list[Output]:
    count, prompt = len(chosen), encoded.prompt[chosen]
    end, call = script.marks[END], script.marks[CALL]
    forced = np.full((count, limit + 1), BLANK, np.int64)
    for row, number in enumerate(chosen):
        forced[row, : prompt[row]] = encoded.tokens[number, : prompt[row]]
    width = encoded.answers.shape[1]
    fixed = form.fixed_width(script)
    tools = [Calculator(script, x[n], form) for n in chosen] if isinstance(form, Tool) else []
    steps = torch.from_numpy(np.ascontiguousarray(encoded.steps[chosen]))
    written = np.full((count, limit), end, np.int64)
    finish = np.full(count, limit)  # the position after each row's last token
    at = int(prompt.min())
    written[:, :at] = forced[:, :at]
    cache = model.cache()
    live = np.arange(count)  # rows that still write
    fresh = written[:, :at]
    while at < limit:
        proposed = model.next_logits(torch.from_numpy(fresh), steps, cache).argmax(1).cpu().numpy()
        token = np.where(forced[live, at] != BLANK, forced[live, at], proposed)
        written[live, at] = token
        for row in live[(token == call) & (forced[live, at] == BLANK)].tolist() if tools else ():
            result = tools[row].answer(written[row, prompt[row] : at + 1].tolist())[: limit - at - 1]
            forced[row, at + 1 : at + 1 + len(result)] = result
        at += 1
        over = (at >= prompt[live] + width) if fixed else ((token == end) & (at > prompt[live]))
        finish[live[over]] = at
        if over.all():
            break
        if over.any():  # rows that have ended cost nothing from here on
            kept = np.flatnonzero(~over)
            rows = torch.from_numpy(kept)
            live, steps, cache = live[kept], steps[rows], model.keep(cache, rows)
        if tick is not None:
            tick()
        fresh = written[live, at - 1 : at]
    outputs = []
    for row, number in enumerate(chosen):
        own = written[row, prompt[row] : finish[row]].tolist()
        answer = form.answer_tokens(script, own, width)
        right = [t for t in encoded.answers[number].tolist() if t != BLANK]
        unreadable = tuple(tools[row].unreadable) if tools else ()
        correct = answer is not None and script.same(answer, right)
        outputs.append(Output(tuple(own), None if answer is None else tuple(answer), correct, unreadable))
    return outputs
