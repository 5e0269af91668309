"""One training step here, in a plain PyTorch loop over the same model, and in Hugging Face Trainer on a GPT-2.

2 layers, width 128, direct format of iterated-product, T = 16, batch 128. The plain loop computes logits
everywhere and uses torch's AdamW; the Trainer does what it does by default, with a GPT-2 of the same layers, width
and vocabulary. Figures are tokens/s of this laboratory over the peer's (above 1: faster).
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn import functional as F

from crevasse.api import make_config
from crevasse.documents import Data, Rows
from crevasse.formats.script import MARKS
from crevasse.models import losses
from crevasse.trial import run_trial
from measure import Figure, seconds

STEPS, BATCH = 60, 128


def figures() -> Iterator[Figure]:
    """Tokens/s against the plain loop and against Trainer, for an answer alone and for a trace."""
    torch.set_num_threads(1)
    for form in ("direct", "trace"):
        config = make_config(
            "iterated-product:p=13,T=16,beyond=", form, "transformer:width=128", "adamw",
            train=4000, steps=STEPS, batch=BATCH, probe_every=20,
        )  # fmt: skip
        data = Data(config)
        ours, plain, trainer = [], [], []
        for _ in range(5):  # the first round warms up
            with tempfile.TemporaryDirectory() as folder:
                ours.append(run_trial(config, Path(folder), meter=False)["seconds"])
            plain.append(plain_loop(config, data))
            trainer.append(hugging_face(data))
        pairs = list(zip(ours, plain, trainer, strict=True))[1:]
        plain_goal, trainer_goal = ("≥ 1.5", "≥ 3") if form == "direct" else (None, None)
        yield Figure(f"{form}: tokens/s over a plain loop", [p / o for o, p, _ in pairs], plain_goal)
        yield Figure(f"{form}: tokens/s over Hugging Face Trainer", [t / o for o, _, t in pairs], trainer_goal)


def plain_loop(config, data: Data) -> float:
    """Seconds of the usual loop: embed, blocks, logits at every position, cross entropy with a mask."""
    rows = Rows.of(data.train)
    model = config.model.build(data.script.size, data.context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)

    def loop() -> None:
        for _ in range(STEPS):
            picked = torch.randint(len(rows.tokens), (BATCH,), generator=generator)
            tokens = rows.tokens[picked].long()
            targets = torch.where(rows.loss[picked], tokens, -100)[:, 1:]
            logits = model.head(model(tokens[:, :-1], rows.steps[picked]))
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            loss.item()

    return seconds(loop)


def hugging_face(data: Data) -> float:
    """Seconds of `Trainer.train` on a GPT-2 of the same size."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
    from transformers.utils import logging

    logging.set_verbosity_error()
    rows = Rows.of(data.train)
    labels = torch.where(rows.loss, rows.tokens.long(), -100)
    dataset = [{"input_ids": t, "labels": v} for t, v in zip(rows.tokens.long()[: STEPS * BATCH], labels, strict=False)]
    size = GPT2Config(
        vocab_size=data.script.size, n_positions=data.context, n_embd=128, n_layer=2, n_head=4,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=3e-3, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        trainer = Trainer(GPT2LMHeadModel(size), arguments, train_dataset=dataset)
        return seconds(trainer.train)


def check_equal() -> float:
    """Largest difference between the losses here and those of the plain form, on one batch and the same weights."""
    config = make_config("iterated-product:p=13,T=16,beyond=", "trace", "transformer:width=128", train=300)
    data = Data(config)
    rows, picked = Rows.of(data.train), torch.arange(BATCH)
    model = config.model.build(data.script.size, data.context)
    tokens = rows.tokens[picked].long()
    targets = torch.where(rows.loss[picked], tokens, -100)[:, 1:]
    logits = model.head(model(tokens[:, :-1], rows.steps[picked]))
    plain = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
    here = losses(model, *rows.pick(picked))[0].mean()
    return float((plain - here).abs())


if __name__ == "__main__":
    assert len(MARKS) and check_equal() < 1e-5
    for figure in figures():
        print(figure)
