"""What a rule costs that looks more than once: gradient agreement filtering, here and in its published package.

Everything in one run on the same batches, 2 layers of width 128, T = 16, batch 128, one thread. Figures are time over a
plain step of the same total batch: our rule over our own plain step and over a plain PyTorch loop's, the published
package over that loop's; and two gradients one after the other (what a rule of two passes costs).
"""

from collections.abc import Iterator

import torch
from gradient_agreement_filtering import step_GAF
from torch.nn import functional as F
from torch.utils.data import Subset, TensorDataset

from crevasse.api import make_config
from crevasse.documents import Data, Rows
from crevasse.passes import Alone, Look
from crevasse.processes import World
from crevasse.rules import RULES, Cost, Oracle, Seen, Update, Weights, answered
from crevasse.rules.base import Rule
from measure import Figure, seconds
from peers import PlainDecoder, plain_loss

BATCH, K, ROUNDS = 128, 4, 12


def figures() -> Iterator[Figure]:
    """Ratios of steps."""
    torch.set_num_threads(1)
    for width in (128, 32):
        yield from _figures(width)


def _figures(width: int) -> Iterator[Figure]:
    config = make_config(
        "iterated-product:p=13,T=16,beyond=", "direct", f"transformer:width={width}", train=4000, batch=BATCH
    )
    data = Data(config)
    rows = Rows.of(data.train)
    built = config.model.build(data.script.size, data.context, data.silent)
    plain, theirs = PlainDecoder(built), _LastLogits(PlainDecoder(built))
    optimizer = torch.optim.AdamW(plain.parameters(), lr=3e-3)
    other = torch.optim.AdamW(theirs.parameters(), lr=3e-3)
    dataset = TensorDataset(rows.tokens[:, :-1].long(), rows.tokens[:, -1].long())
    part = torch.arange(BATCH)

    def plain_step() -> None:
        loss = plain_loss(plain, rows, part)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def published() -> None:
        microbatches = [Subset(dataset, piece.tolist()) for piece in part.split(BATCH // K)]
        step_GAF(theirs, other, F.cross_entropy, microbatches, wandb=False, verbose=False, cos_distance_thresh=2.0)

    works = {
        "plain": plain_step, "published": published, "adamw": _ours(RULES.parse("adamw"), built, rows, part),
        "gaf": _ours(RULES.parse(f"gaf:k={K},threshold=2"), built, rows, part),
        "two": _ours(TwoPasses(), built, rows, part),
    }  # fmt: skip
    time = {name: [seconds(work) for _ in range(3)][:0] for name, work in works.items()}
    for _ in range(ROUNDS):
        for name, work in works.items():
            time[name].append(seconds(work))
    for name, over, goal in (
        ("gaf", "adamw", None), ("gaf", "plain", "≤ 1.15"), ("published", "plain", None),
        ("two", "adamw", "≤ 2.1"),
    ):  # fmt: skip
        title = {"gaf": f"gaf of {K} microbatches", "published": f"the published package, {K} microbatches",
                 "two": "a rule of two passes"}[name]  # fmt: skip
        base = {"adamw": "our plain step", "plain": "a plain loop's step"}[over]
        yield Figure(
            f"width {width}: {title} over {base}", [a / b for a, b in zip(time[name], time[over], strict=True)], goal
        )


class TwoPasses(Rule):
    """A gradient at the weights, and one a little further: the cost of sharpness-aware rules."""

    name = "two-passes"

    def init(self, weights):
        return RULES.parse("adamw").init(weights)

    def update(self, oracle, weights, state, scale):
        _, first = yield from oracle.gradient()
        loss, gradient = yield from oracle.gradient(at=weights + 0.05 * first / first.norm())
        moved, state = RULES.parse("adamw").apply(gradient, weights, state, scale)
        return Update(moved, state, loss)


def _ours(rule, model, rows: Rows, part):
    """One step of a rule, as a trial takes it."""
    weights = Weights(model)
    alone = Alone(model, weights, 0, World(), stacks=True)
    state = rule.init(weights.flat)

    def answer(ask) -> Seen:
        found = alone.look(Look(rows, part.split(len(part) // ask.parts), ask.slopes, ask.at))
        return Seen(found.losses, found.gradients)

    def step() -> None:
        nonlocal state
        update = answered(rule.update(Oracle(len(part), Cost()), weights.flat, state, 1.0), answer)
        state = update.state
        weights.flat.copy_(update.weights)

    return step


class _LastLogits(torch.nn.Module):
    """What the package expects: one row of logits an example."""

    def __init__(self, decoder: PlainDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens):
        return self.decoder(tokens)[:, -1]


if __name__ == "__main__":
    for figure in figures():
        print(figure)
