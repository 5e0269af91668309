"""Tiny language models with random weights, made on disk in a second and without a network."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

END = "<|endoftext|>"
WIDTH, LAYERS, HEADS, POSITIONS, TOKENS = 32, 2, 2, 1024, 512


def make_tiny(folder: Path, family: str = "llama", merge_digits: bool = False, seed: int = 0) -> Path:
    """A folder with a random model and its tokenizer. The same arguments give the same bytes."""
    tokenizer = make_tokenizer(merge_digits, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(family, len(tokenizer), tokenizer.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def make_tokenizer(merge_digits: bool = False, seed: int = 0) -> PreTrainedTokenizerFast:
    """Byte-level BPE: every text has tokens. Digits stand alone, or are merged as GPT-2 merges them ("120")."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.pre_tokenizer = (
        byte_level
        if merge_digits
        else pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    )
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_text(merge_digits, seed), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, bos_token=END, unk_token=END, model_max_length=POSITIONS
    )


def _text(merge_digits: bool, seed: int) -> list[str]:
    chance = random.Random(seed)
    lines = ["The product of three and four is twelve.", "Problem: multiply the numbers. Answer:", "state => next"] * 20
    if merge_digits:
        lines += [f"{n}! = 120 and 5040, {chance.randrange(10, 100)} * {n} = 120" for n in range(200)]
        lines += ["=120;720"] * 50
    return lines


def _model(family: str, tokens: int, end: int) -> torch.nn.Module:
    ends = {"bos_token_id": end, "eos_token_id": end}
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(
            vocab_size=tokens, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, num_key_value_heads=1, max_position_embeddings=POSITIONS,
            tie_word_embeddings=True, **ends,
        ))  # fmt: skip
    if family == "gpt_neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(
            vocab_size=tokens, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, max_position_embeddings=POSITIONS, **ends,
        ))  # fmt: skip
    if family == "gpt2":
        return GPT2LMHeadModel(GPT2Config(
            vocab_size=tokens, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=POSITIONS, **ends,
        ))  # fmt: skip
    raise ValueError(f"no tiny model of the family {family!r}")
