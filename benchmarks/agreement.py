"""What a rule costs that looks more than once: gradient agreement filtering, here and in its published package.

Everything in one run on the same batches, 2 layers of width 128, T = 16, batch 128, one thread. Figures are time over a
plain step of the same total batch: our rule over our own plain step and over a plain PyTorch loop's, the published
package over that loop's; and `sam`, which makes two passes one after the other.
"""

from collections.abc import Iterator

import torch
from gradient_agreement_filtering import step_GAF
from torch.nn import functional as F
from torch.utils.data import Subset, TensorDataset

from crevasse.api import make_config
from crevasse.documents import Data, Rows
from crevasse.rules import RULES
from measure import Figure, seconds
from peers import PlainDecoder, plain_loss
from rules import stepper

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
        "plain": plain_step, "published": published, "adamw": stepper(RULES.parse("adamw"), built, rows, part, part),
        "gaf": stepper(RULES.parse(f"gaf:k={K},threshold=2"), built, rows, part, part),
        "two": stepper(RULES.parse("sam"), built, rows, part, part),
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
                 "two": "sam"}[name]  # fmt: skip
        base = {"adamw": "our plain step", "plain": "a plain loop's step"}[over]
        yield Figure(
            f"width {width}: {title} over {base}", [a / b for a, b in zip(time[name], time[over], strict=True)], goal
        )


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
