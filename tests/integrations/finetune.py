"""A fine-tune small enough for a test: a tiny model on disk with a tokenizer of single characters."""

import string
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, Trainer, TrainingArguments, set_seed
from transformers.utils import logging

logging.set_verbosity_error()
CHARACTERS = string.ascii_lowercase + string.digits + " +*=.?:"


def make_model(folder: Path, dropout: float = 0.0, width: int = 32, layers: int = 2, seed: int = 0) -> Path:
    """A folder that `from_pretrained` reads, weights drawn at random."""
    words = {c: i for i, c in enumerate(["<pad>", "<end>", "<unk>", *CHARACTERS])}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", unk_token="<unk>", padding_side="right"
    )
    set_seed(seed)
    config = GPT2Config(
        vocab_size=len(words), n_positions=48, n_embd=width, n_layer=layers, n_head=4, attn_pdrop=dropout,
        embd_pdrop=dropout, resid_pdrop=dropout, bos_token_id=1, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def arguments(folder: Path, **over) -> TrainingArguments:
    """Quiet, on the CPU, nothing saved."""
    quiet = {"report_to": [], "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True, "use_cpu": True}
    usual = {"max_steps": 12, "per_device_train_batch_size": 8, "learning_rate": 3e-3, "seed": 1}
    return TrainingArguments(str(folder), **{**quiet, **usual, **over})


def train(model, rows, folder: Path, *, callbacks=(), collator=None, tokenizer=None, **over):
    """One fine-tune. -> its Trainer"""
    trainer = Trainer(
        model, arguments(folder, **over), train_dataset=rows, data_collator=collator, callbacks=list(callbacks),
        processing_class=tokenizer,
    )  # fmt: skip
    trainer.train()
    return trainer
