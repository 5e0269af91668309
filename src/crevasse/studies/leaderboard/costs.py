"""What a step of a rule costs, counted before any training, so that every rule can be given the same passes."""

import dataclasses
import functools
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from crevasse.rules import Ask, BaseRule, Oracle, Rule, Seen, Step, Weights, answered
from crevasse.rules.changes import Tally
from crevasse.rules.from_file import FromFile
from crevasse.rules.sgd import Sgd

#: Steps over which costs that come now and then are averaged.
STEPS = 400
#: Of a batch that divides into whatever parts a rule asks for; what is asked does not depend on how many there are.
ROWS = 5040


def rows_a_step(rule: Rule, batch: int, steer: int = 0) -> float:
    """Rows forward plus rows backward of a step, on average over the first `STEPS`.

    Counted on a model of a few weights with random gradients, as no rule's cost depends on what they are, but that of
    rules which end or go back by themselves (race).
    """
    if isinstance(rule, FromFile):
        rule = rule.rule
    if type(rule).update is BaseRule.update:
        return 2.0 * batch
    whole: Any = rule
    if any(f.name == "base" for f in dataclasses.fields(whole)):
        rule = dataclasses.replace(whole, base=Sgd())  # no base asks anything by itself
    read = sum(
        ((steer if ask.steer else batch) // ask.parts * len(ask.asked)) * (1 + ask.slopes) * times
        for ask, times in _asked(rule).items()
    )
    return read / STEPS


@functools.cache
def _asked(rule: Rule) -> Counter[Ask]:
    """What it asks in all, without the weights at which it asks."""
    torch_state = torch.random.get_rng_state()
    module = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    torch.random.set_rng_state(torch_state)
    weights, asked = Weights(module), Counter[Ask]()
    flat, state = weights.flat.clone(), rule.init(weights.flat, weights.layout)
    generator = torch.Generator().manual_seed(0)

    def answer(ask: Ask) -> Seen:
        if ask.tally is not None:  # which costs no pass
            return Seen(torch.empty(0), tally=Tally(0, 0, 1.0))
        asked[dataclasses.replace(ask, at=None)] += 1
        parts = len(ask.asked)
        slopes = torch.randn(parts, len(flat), generator=generator) if ask.slopes else None
        return Seen(1 + torch.rand(parts, generator=generator), slopes)

    for number in range(STEPS):
        step = Step(weights.layout, 0.1, number)
        update = answered(rule.update(Oracle(ROWS, ROWS), flat, state, step), answer)
        flat, state = _finite(update.weights), update.state
    return asked


def _finite(weights: Tensor) -> Tensor:
    return weights.nan_to_num().clamp(-1, 1)
