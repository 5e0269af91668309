"""Fine-tuning and free running of SmolLM2-135M here and in transformers' own Trainer and `generate`.

The same model, documents, batches of 7 and numbers of steps, float32 products on both sides and one thread. Trainer
pads with its own collator and computes logits at every position; here rows of similar length go together and logits
are computed where there is loss. `generate` writes as many tokens for as many rows, without a tool; here the
calculator answers inside the loop. Needs the extra `llm` and `crevasse models pull smollm2-135m`.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from crevasse.api import make_config
from crevasse.documents import Data, Rows
from crevasse.errors import UserError
from crevasse.formats.generate import generate
from crevasse.trial import run_trial
from measure import Figure, seconds

MODEL, STEPS, BATCH = "pretrained:smollm2-135m,dtype=float32", 2, 7


def config_of(form: str, steps: int = STEPS, **fields):
    """The thesis' factorial, in one format."""
    return make_config("factorial", form, MODEL, "adamw:lr=0.00005", train=None, steps=steps, batch=BATCH, **fields)


def figures() -> Iterator[Figure]:
    """Tokens/s over Trainer; tokens/s of running with the tool over `generate`; peak memory."""
    torch.set_num_threads(1)
    try:
        config = config_of("tool")
    except UserError as e:
        print(f"fine_tuning: left out ({e})")
        return
    data = Data(config)
    pairs = []
    for _ in range(3):  # the first round warms up
        with tempfile.TemporaryDirectory() as folder:
            ours = run_trial(config, Path(folder), meter=False)["seconds"]
        pairs.append(trainer(data) / ours)
    yield Figure("fine-tuning, tool: tokens/s over Hugging Face Trainer", pairs[1:], "≥ 1.3")
    yield Figure("running freely with the tool: tokens/s over generate", list(running(config, data))[1:], "≥ 1")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import fine_tuning; fine_tuning.peak(sys.argv[2])"
    for options in ("chunk=800", "chunk=800,lora"):
        here = str(Path(__file__).parent)
        done = subprocess.run([sys.executable, "-c", code, here, options], capture_output=True, text=True, check=True)
        name = "LoRA" if "lora" in options else "all weights"
        yield Figure(f"fine-tuning, tool, {name}: peak GiB", [float(done.stdout)], "≤ 8")


def trainer(data: Data) -> float:
    """Seconds of `Trainer.train` over the same documents."""
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
    from transformers.utils import logging

    from crevasse.models import hub

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(hub.resolve("smollm2-135m"), dtype=torch.float32)
    model.resize_token_embeddings(data.script.size, mean_resizing=False)
    rows = Rows.of(data.train)
    dataset = [
        {"input_ids": t[:n].long(), "labels": torch.where(m[:n], t[:n].long(), -100)}
        for t, m, n in zip(rows.tokens, rows.loss, rows.lengths.tolist(), strict=True)
    ]

    def collate(some):
        width = max(len(row["input_ids"]) for row in some)
        pad = {"input_ids": 0, "labels": -100, "attention_mask": 0}
        rows = [{**row, "attention_mask": torch.ones(len(row["input_ids"]), dtype=torch.long)} for row in some]
        return {
            name: torch.stack([torch.nn.functional.pad(r[name], (0, width - len(r[name])), value=v) for r in rows])
            for name, v in pad.items()
        }

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=BATCH, max_steps=STEPS, learning_rate=5e-5, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True, use_cpu=True,
        )  # fmt: skip
        return seconds(Trainer(model, arguments, train_dataset=dataset, data_collator=collate).train)


def running(config, data: Data) -> Iterator[float]:
    """Tokens a second with the calculator in the loop, over those of `generate` for the same number of tokens."""
    model = config.model.build(data.script.size, data.context)
    model.introduce(data.tokenizer.pieces)
    encoded, x = data.tests["extrapolation"], data.splits.tests["extrapolation"].x
    prompts = torch.stack([torch.from_numpy(t[:p]).long() for t, p in zip(encoded.tokens, encoded.prompt, strict=True)])
    for _ in range(3):
        began = time.perf_counter()
        written = generate(model, data.form, data.script, encoded, x)
        ours = time.perf_counter() - began
        lengths = [len(o.tokens) for o in written]
        longest = max(lengths)
        settings = {"min_new_tokens": longest, "max_new_tokens": longest, "pad_token_id": data.tokenizer.end}
        theirs = seconds(partial(model.net.generate, prompts, do_sample=False, **settings))
        yield (sum(lengths) / ours) / (longest * len(prompts) / theirs)


def peak(options: str) -> None:
    """Print the most memory, in GiB, that a short fine-tune of its own process took."""
    config = config_of("tool", chunk=800, probe_every=100)
    if "lora" in options:
        import dataclasses

        config = dataclasses.replace(config, model=dataclasses.replace(config.model, lora=16))
    from crevasse import memory

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run_trial(config, Path(folder), meter=False)
    print(memory.peak() / 2**30)


if __name__ == "__main__":
    for figure in figures():
        print(figure)
