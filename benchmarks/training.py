"""One training step here, in the usual loop over the same function, and in Hugging Face Trainer on a GPT-2.

Our figure is the whole trial's loop (rule, ledger, data, everything but the meter). `peers.PlainDecoder` computes the
same function with the same weights: loss and gradient are compared first. One thread each. Figures are tokens/s of this
laboratory over the peer's (above 1: faster), and the share of the arithmetic floor that is reached: the products that
the loss needs, at the rate of this machine's own matrix product.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from crevasse.api import make_config
from crevasse.documents import Data, Rows
from crevasse.models.sharing import shared_beginnings
from crevasse.passes import Alone, Look
from crevasse.processes import World
from crevasse.rules import Weights
from crevasse.trial import run_trial
from measure import Figure, product_rate, seconds
from peers import PlainDecoder, plain_loop, plain_loss

STEPS, ROUNDS = 40, 6
CASES = (  # form, factors, batch, goals over the plain loop and over Trainer
    ("direct", 16, 128, "≥ 1.8", "≥ 3"),
    ("trace", 16, 128, "≥ 1.25", "≥ 2.2"),
    ("direct", 4, 512, "≥ 2.5", None),
)


def figures() -> Iterator[Figure]:
    """Tokens/s against the plain loop and against Trainer, and the share of the floor."""
    torch.set_num_threads(1)
    for form, factors, batch, plain_goal, trainer_goal in CASES:
        config = make_config(
            f"iterated-product:p=13,T={factors},beyond=", form, "transformer:width=128", "adamw",
            train=4000, steps=STEPS, batch=batch,
        )  # fmt: skip
        data = Data(config)
        rows = Rows.of(data.train)
        model = config.model.build(data.script.size, data.context, data.silent)
        yield Figure(
            f"{form} T={factors}: difference of loss and gradient", list(differences(model, rows, batch)), None
        )
        ours, plain, trainer, rate = [], [], [], []
        for _ in range(ROUNDS):  # the first round warms up
            with tempfile.TemporaryDirectory() as folder:
                ours.append(run_trial(config, Path(folder), meter=False)["seconds"])
            plain.append(seconds(lambda: plain_loop(PlainDecoder(model), rows, STEPS, batch)))  # noqa: B023
            trainer.append(hugging_face(data, batch) if trainer_goal else 0.0)
            rate.append(product_rate())
        need = STEPS * products(rows, data.script.size - data.silent, batch)
        floor = [need / r / o for r, o in zip(rate, ours, strict=True)][1:]
        name = f"{form} T={factors} batch {batch}"
        yield Figure(f"{name}: tokens/s over a plain loop", ratio(plain, ours), plain_goal)
        if trainer_goal:
            yield Figure(f"{name}: tokens/s over Hugging Face Trainer", ratio(trainer, ours), trainer_goal)
        yield Figure(f"{name}: share of the arithmetic floor", floor, "≥ 0.70")


def ratio(theirs: list[float], ours: list[float]) -> list[float]:
    """Round by round, without the first."""
    return [t / o for t, o in zip(theirs, ours, strict=True)][1:]


def differences(model: torch.nn.Module, rows: Rows, batch: int) -> Iterator[float]:
    """Between our loss and the plain loop's, and the largest between the gradients, as a share of its largest."""
    part = torch.arange(batch)
    weights = Weights(model)
    found = Alone(model, weights, 0, World()).look(Look(rows, (part,), slopes=True))
    plain = PlainDecoder(model)
    loss = plain_loss(plain, rows, part)
    loss.backward()
    slopes = {name: p.grad for name, p in plain.named_parameters()}
    flat = torch.cat([slopes[name].flatten() for name, _ in model.named_parameters()])
    yield abs(float(found.losses[0]) - float(loss.detach()))
    yield float((found.gradients[0] - flat).abs().max() / flat.abs().max())


def products(rows: Rows, vocabulary: int, batch: int, width: int = 128, layers: int = 2) -> float:
    """Multiplications and additions that one step needs, forward and backward, in matrix products.

    Queries, keys and values of the first layer for each (token, position) pair that occurs; everything else of the
    inner layers for each different beginning; of the last one, keys and values for those, and queries, output and MLP
    only from the first column with loss on.
    """
    part = torch.arange(batch)
    tokens = rows.tokens[part].long()[:, :-1]
    length = tokens.shape[1]
    pairs = len(torch.unique(tokens * length + torch.arange(length)))
    places = shared_beginnings(tokens)
    nodes = batch * length if places.place is None else len(places.place)
    asked = batch * (length - rows.first)
    square = 2.0 * width * width
    attention = 4.0 * width * (layers - 1) * batch * length * (length + 1) / 2 + 4.0 * width * asked * length
    forward = 3 * square * pairs + (layers - 1) * 9 * square * nodes + 2 * square * nodes + 10 * square * asked
    if layers > 2:
        forward += (layers - 2) * 3 * square * nodes
    return 3 * (forward + attention + 2.0 * width * vocabulary * int(rows.targets[part].sum()))


def hugging_face(data: Data, batch: int) -> float:
    """Seconds of `Trainer.train` on a GPT-2 of the same size."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    rows = Rows.of(data.train)
    labels = torch.where(rows.loss, rows.tokens.long(), -100)
    count = min(STEPS * batch, len(labels))
    dataset = [{"input_ids": t, "labels": v} for t, v in zip(rows.tokens.long()[:count], labels, strict=False)]
    size = GPT2Config(
        vocab_size=data.script.size, n_positions=data.context, n_embd=128, n_layer=2, n_head=4,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=batch, max_steps=STEPS, learning_rate=3e-3, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        trainer = Trainer(GPT2LMHeadModel(size), arguments, train_dataset=dataset)
        return seconds(trainer.train)


if __name__ == "__main__":
    for figure in figures():
        print(figure)
