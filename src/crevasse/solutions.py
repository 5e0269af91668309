"""Constructed solutions of tasks: which of `models/constructed` solves what, and what it sets in a trial's model.

Models know no task and constructions take plain arrays; here a task is turned into these.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from crevasse.config import TrialConfig
from crevasse.documents import Data
from crevasse.errors import UserError
from crevasse.formats.script import FILLER, MARKS
from crevasse.judgement import judge
from crevasse.models import Model
from crevasse.models.constructed.addition import set_addition
from crevasse.models.constructed.automata import Automaton, explore
from crevasse.models.constructed.doubling import doubling_width, set_doubling
from crevasse.models.constructed.looped import set_looped
from crevasse.models.constructed.parity import set_counting
from crevasse.models.constructed.recurrent import set_bilinear, set_gru
from crevasse.models.mlp import Mlp
from crevasse.models.recurrent import Bilinear, Recurrent
from crevasse.models.transformer import Looped, Transformer, TransformerConfig
from crevasse.seeds import seed_for
from crevasse.tasks import Task
from crevasse.tasks.counters import Cycle, Parity
from crevasse.tasks.factorial import FactorialMod
from crevasse.tasks.groups import Words, multiplication_table
from crevasse.tasks.maps import Affine
from crevasse.tasks.modular import Modular
from crevasse.tasks.products import IteratedProduct

#: The token of residue 0.
FIRST = len(MARKS)

Ints = NDArray[np.int64]


def constructed(config: TrialConfig) -> Tensor:
    """Weights set by formula that solve a trial's task in its model. (weight,)

    A transformer of m layers multiplies up to 2^m elements, and of longer words the last so many.
    Raises UserError where no construction is known, and where the model is too small for it.
    """
    return parameters_to_vector(_built(config, Data(config)).parameters()).detach()


def constructed_scores(config: TrialConfig) -> dict[str, float]:
    """What the constructed model answers rightly, read as a trained one is: split -> share. Raises UserError."""
    data = Data(config)
    scores: dict[str, float] = judge(config, data, _built(config, data))["splits"]
    return scores


def doubling_model(task: Task, layers: int) -> TransformerConfig:
    """The smallest transformer into which the doubling of a product of 2^layers elements fits. Raises UserError."""
    elements = len(_monoid(task).table)
    heads = 2
    width = max(doubling_width(elements, layers), heads * elements)
    return TransformerConfig(layers=layers, width=-(-width // 4) * 4, heads=heads)


@dataclass(frozen=True)
class _Monoid:
    """What a word of symbols multiplies out to."""

    table: Ints  # (element, element) left times right
    elements: Ints  # (symbol,) what each symbol stands for
    tokens: Ints  # (symbol,)
    answers: Ints  # (element,) the token that each is read out as

    def automaton(self) -> Automaton:
        """Whose state is the product so far."""
        return Automaton(self.table[:, self.elements], self.elements, self.tokens, self.answers)


def _built(config: TrialConfig, data: Data) -> Model:
    if not data.script.residues or config.format.name not in ("direct", "filler"):
        raise UserError("constructions answer directly or after empty tokens, in residues, a token a value")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(config.seed, "weights"))
        model = config.model.build(data.script.size, data.context, data.silent)
    task = config.task
    if isinstance(model, Mlp) and isinstance(task, Modular) and task.op == "add":
        set_addition(model, np.arange(task.p) + FIRST)
    elif isinstance(model, Transformer):
        monoid = _monoid(task)
        if isinstance(task, Parity | Cycle):
            set_counting(model, len(monoid.table), monoid.tokens, monoid.elements, monoid.answers)
        else:
            set_doubling(model, monoid.table, monoid.tokens, monoid.elements, monoid.answers)
    elif isinstance(model, Bilinear | Recurrent | Looped):
        write = set_bilinear if isinstance(model, Bilinear) else set_looped if isinstance(model, Looped) else set_gru
        write(model, _automaton(task, config.format.name == "filler"))  # type: ignore[arg-type]
    else:
        raise _unknown(config.model.name, task.name)
    return model


def product_of(task: Task) -> tuple[Ints, Ints]:
    """The multiplication table of a task that is a product, (element, element), and the number that each element is
    answered by, (element,). Raises UserError for another task."""
    monoid = _monoid(task)
    return monoid.table.astype(np.int64), monoid.answers - FIRST


def _monoid(task: Task) -> _Monoid:
    """Raises UserError for a task that is no product."""
    if isinstance(task, IteratedProduct):
        values = np.arange(1, task.p)
        table = values[:, None] * values % task.p - 1
        return _Monoid(table, values - 1, values + FIRST, values + FIRST)
    if isinstance(task, Words):
        table = multiplication_table(task.group)
        every = np.arange(len(table))
        return _Monoid(table, every, every + FIRST, every + FIRST)
    if isinstance(task, Parity | Cycle):
        size, steps = (2, [0, 1]) if isinstance(task, Parity) else (5, [1, 4])
        every, symbols = np.arange(size), np.array(steps)
        return _Monoid((every[:, None] + every) % size, symbols, symbols + FIRST, every + FIRST)
    raise _unknown("a sequence model", task.name)


def _automaton(task: Task, fillers: bool) -> Automaton:
    """Raises UserError for a task that is none, and where its steps find no room."""
    if isinstance(task, FactorialMod):
        if not fillers:
            raise UserError("factorial-mod is counted down on empty tokens: the construction needs the format filler")
        return _factorial(task)
    return _affine(task) if isinstance(task, Affine) else _monoid(task).automaton()


def _unknown(model: str, task: str) -> UserError:
    return UserError(
        f"no weights are known by formula for {model} on {task} (there are for bilinear, gru, looped and transformer "
        "on iterated-product, words, parity and cycle, for the first three on affine with fresh maps and on "
        "factorial-mod, and for mlp on modular addition)"
    )


def _affine(task: Affine) -> Automaton:
    """State: the value, and whether b comes next."""
    if task.maps != "fresh":
        raise UserError("no weights are known by formula for affine with fixed maps; there are with maps=fresh")

    def step(state: tuple[int, bool], v: int) -> tuple[int, bool]:
        value, b_next = state
        return ((value + v) % task.p, False) if b_next else (value * v % task.p, True)

    return explore([(v, False) for v in range(task.p)], step, range(FIRST, FIRST + task.p), lambda s: s[0] + FIRST)


def _factorial(task: FactorialMod) -> Automaton:
    """State: n alone, then p, a counter and the product; an empty token is a step."""
    primes, size = set(task.p), task.symbols

    def step(state: tuple[int, ...], symbol: int) -> tuple[int, ...]:
        if len(state) == 1:
            (n,) = state
            return (symbol, n - 1, n) if symbol in primes and n < symbol else state
        p, count, product = state
        return (p, count - 1, product * count % p) if symbol == size and count > 0 else state

    first: list[tuple[int, ...]] = [(v,) for v in (*range(size), 0)]
    return explore(first, step, [*range(FIRST, FIRST + size), FILLER], lambda state: state[-1] + FIRST)
