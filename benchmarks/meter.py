"""What the lockstep meter costs in a Hugging Face Trainer: the same fine-tune with it and without, in pairs.

A GPT-2 of 2 layers, width 64, rows of 32 tokens, batch 16, 300 steps, at the default pace.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from measure import Figure, seconds

STEPS, BATCH, TOKENS, WORDS = 300, 16, 32, 256


def figures() -> Iterator[Figure]:
    """Seconds of `Trainer.train` with the callback over those without, and what was counted beforehand."""
    from crevasse.integrations.trainer import LockstepCallback

    class Timed(LockstepCallback):
        """Adds up the seconds of what the trainer calls, but for the picture that is drawn after the training."""

        spent = 0.0

        def on_train_begin(self, *args, **kwargs) -> None:
            self.spent += seconds(lambda: super(Timed, self).on_train_begin(*args, **kwargs))

        def on_step_end(self, *args, **kwargs) -> None:
            self.spent += seconds(lambda: super(Timed, self).on_step_end(*args, **kwargs))

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(WORDS, (2000, TOKENS), generator=generator).tolist()
    rows = [{"input_ids": t, "labels": t} for t in tokens]
    train, held_out = rows[:1800], rows[1800:]
    values, within, counted = [], [], 0.0
    for _ in range(6):  # the first round warms up
        callback = Timed(train, held_out, rows=32)
        metered = fine_tune(train, [callback])
        within.append(1 + callback.spent / (metered - callback.spent))
        values.append(metered / fine_tune(train, []))
        counted = callback.cost
    yield Figure("Trainer, GPT-2, time of the meter within a run", within[1:], "≤ 1.05")
    yield Figure("fine-tune with the meter over without: Trainer, GPT-2", values[1:], "≤ 1.05")
    yield Figure("the same, as counted beforehand", [1 + counted], None)


def fine_tune(rows, callbacks) -> float:
    """Seconds of one training, the callback's checks, readings and picture included."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed
    from transformers.utils import logging

    logging.set_verbosity_error()
    set_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=WORDS, n_positions=TOKENS, n_embd=64, n_layer=2, n_head=4))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            str(Path(folder) / "out"), per_device_train_batch_size=BATCH, max_steps=STEPS, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        return seconds(Trainer(model, arguments, train_dataset=rows, callbacks=callbacks).train)


if __name__ == "__main__":
    for figure in figures():
        print(figure)
