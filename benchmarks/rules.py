"""What a step of every rule costs, counted and timed, in one run.

Here: the laboratory's own step, 2 layers of width 128, T = 16, batch 128, one thread; each rule's step over that of its
plain base with the same batch. The name of a figure says the passes that were counted, in units of one forward and
backward pass. Outside: rules around torch's AdamW in a plain PyTorch loop over the same function, over that loop
without them.
"""

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from crevasse.api import make_config
from crevasse.documents import Data, Rows
from crevasse.integrations.optimizer import RuleOptimizer
from crevasse.passes import Alone, Look
from crevasse.processes import World
from crevasse.rules import RULES, Cost, Oracle, Rule, Seen, Step, Weights, answered
from measure import Figure, seconds
from peers import PlainDecoder

BATCH, ROUNDS = 128, 7
#: At settings that do what the rule is for in every step that is timed.
SETTINGS = {
    "gaf": "gaf:k=4,threshold=2", "delayed-compression": "delayed-compression:below=100",
    "quantise": "quantise:every=1", "restarts": "restarts:copies=2,each=1000",
}  # fmt: skip
GOALS = {"gaf": "≤ 1.15", "sam": "≤ 2.1", "grokfast": "≤ 1.1", "perp": "≤ 1.1"}


def figures() -> Iterator[Figure]:
    """Ratios of steps, rule by rule."""
    torch.set_num_threads(1)
    task = "iterated-product:p=13,T=16,beyond="
    config = make_config(task, "direct", "transformer:width=128", train=4000, batch=BATCH)
    data = Data(config)
    model = config.model.build(data.script.size, data.context, data.silent)
    yield from _here(data, model)
    yield from _outside(data, model)


def _here(data: Data, model: nn.Module) -> Iterator[Figure]:
    config = make_config(
        "iterated-product:p=13,T=16,beyond=", "direct", "transformer:width=128", train=4000, batch=BATCH
    )
    data = Data(config)
    rows = Rows.of(data.train)
    model = config.model.build(data.script.size, data.context, data.silent)
    part, steer = torch.arange(BATCH), torch.arange(BATCH, 2 * BATCH)
    bases: dict[str, Callable[[], Cost]] = {}
    for name in (n for n in RULES if n not in ("file", "race")):  # what a step of race costs changes on the way
        rule = RULES.parse(SETTINGS.get(name, name))
        base = _innermost(rule)
        plain = bases.setdefault(base, stepper(RULES.parse(base), model, rows, part, steer))
        step = stepper(rule, model, rows, part, steer)
        plain(), step()
        times = [(seconds(step), seconds(plain)) for _ in range(ROUNDS)]
        cost = step()
        passes = f"{(cost.forward_rows + 2 * cost.backward_rows) / BATCH / 3:.2g}"
        yield Figure(f"{name} ({passes} passes) over {base}", [a / b for a, b in times], GOALS.get(name))


def _innermost(rule: Rule) -> str:
    base = getattr(rule, "base", None)
    if base is not None:
        return _innermost(base)
    return rule.name if rule.name in ("sgd", "adamw") else "adamw"


def stepper(rule: Rule, model: nn.Module, rows: Rows, part: torch.Tensor, steer: torch.Tensor) -> Callable[[], Cost]:
    """One step of a rule, as a trial takes it; it returns what it cost in rows."""
    weights = Weights(model)
    alone = Alone(model, weights, 0, World(), stacks=True)
    state, number = rule.init(weights.flat, weights.layout), 0

    def step() -> Cost:
        nonlocal state, number
        cost = Cost()

        def answer(ask) -> Seen:
            batch = steer if ask.steer else part
            cost.count(ask, len(batch) // ask.parts * len(ask.asked))
            pieces = batch.split(len(batch) // ask.parts)
            found = alone.look(Look(rows, tuple(pieces[i] for i in ask.asked), ask.slopes, ask.at, ask.stablemax))
            return Seen(found.losses, found.gradients)

        # At rate 0.01 of the usual: the same work, and a model that stays what it is.
        now = Step(weights.layout, 0.01, number)
        update = answered(rule.update(Oracle(len(part), len(steer)), weights.flat, state, now), answer)
        state, number = update.state, number + 1
        weights.flat.copy_(update.weights)
        return cost

    return step


def _outside(data: Data, built: nn.Module) -> Iterator[Figure]:
    rows, part = Rows.of(data.train), torch.arange(BATCH)
    inputs, labels = rows.tokens[part, :-1].long(), rows.tokens[part, -1].long()
    usual = PlainDecoder(built)
    adamw = torch.optim.AdamW(usual.parameters(), lr=1e-4)

    def plain() -> None:
        adamw.zero_grad()
        F.cross_entropy(usual(inputs)[:, -1], labels).backward()
        adamw.step()

    for name in ("gaf", "sam", "grokfast", "perp"):
        net = PlainDecoder(built)
        optimizer = RuleOptimizer(SETTINGS.get(name, name), net, torch.optim.AdamW(net.parameters(), lr=1e-4))

        def ruled(net=net, optimizer=optimizer) -> None:
            for look in optimizer.looks((inputs, labels)):
                x, y = look.batch
                look.backward(F.cross_entropy(net(x)[:, -1], y))

        plain(), ruled()
        times = [(seconds(ruled), seconds(plain)) for _ in range(2 * ROUNDS)]
        yield Figure(f"{name} around torch's AdamW, in a plain loop", [a / b for a, b in times], GOALS[name])


if __name__ == "__main__":
    for figure in figures():
        print(figure)
