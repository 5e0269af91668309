"""Causal language models in the Hugging Face form, with the weights that somebody else has trained.

Needs the extra `llm`. Nothing is imported from transformers before a model is opened, and no code that comes with
weights is ever run.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from crevasse.errors import UserError
from crevasse.models import hub
from crevasse.models.base import Model, ModelConfig, Needs
from crevasse.spec import DERIVED, require

Dtype = Literal["auto", "float32", "bfloat16"]


class _Embedding(nn.Module):
    """A model's embeddings, and rows of their own for tokens that were added to its vocabulary."""

    def __init__(self, table: nn.Embedding, rows: nn.Parameter, known: int) -> None:
        super().__init__()
        self.table, self.rows, self.known = table, rows, known

    def forward(self, tokens: Tensor) -> Tensor:
        """(row, position) -> (row, position, width)"""
        out: Tensor = self.table(tokens.clamp(max=self.known - 1))
        added = (tokens - self.known).clamp(min=0)
        return torch.where((tokens >= self.known)[..., None], self.rows[added], out) if len(self.rows) else out


class _Head(nn.Module):
    """The model's own head, and rows of their own for added tokens; logits come out in float32."""

    def __init__(self, table: nn.Linear, rows: nn.Parameter, known: int, precision: "_Precision") -> None:
        super().__init__()
        self.table, self.rows, self.known, self.precision = table, rows, known, precision

    def forward(self, hidden: Tensor, exact: bool = False) -> Tensor:
        """(…, width) -> (…, token). exact: in float32 whatever the precision is."""
        with contextlib.nullcontext() if exact else self.precision():
            logits = self.table(hidden)[..., : self.known]
            logits = torch.cat([logits, hidden @ self.rows.T], dim=-1) if len(self.rows) else logits
        return logits.float()


@dataclass(frozen=True)
class _Precision:
    """In which precision products are computed; weights and their updates stay in float32."""

    device: str
    dtype: torch.dtype

    def __call__(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device, self.dtype)


class Pretrained(Model):
    """See `PretrainedConfig`."""

    def __init__(self, config: "PretrainedConfig", vocabulary: int, context: int) -> None:
        super().__init__()
        folder = hub.resolve(config.source)
        device = _device(config.device)
        net = _load(folder)
        limit = getattr(net.config, "max_position_embeddings", context)
        require(context <= limit, f"{config.source} reads at most {limit} tokens, but a document may need {context}")
        _require_plain_head(net)
        if config.lora:
            net = _with_lora(net, config)
        else:
            for p in net.parameters():
                p.requires_grad_(True)
        # Dropout stays off, as in evaluation; only the layers that may be recomputed are told that they are training.
        net.eval()
        if config.checkpointing:
            _recompute(net, config.source)
        table, head = net.get_input_embeddings(), net.get_output_embeddings()
        known = HubTokenizer(folder).size
        rows = [nn.Parameter(table.weight.new_zeros(vocabulary - known, table.embedding_dim)) for _ in range(2)]
        if head.weight is table.weight:
            rows[1] = rows[0]
        net.set_input_embeddings(_Embedding(table, rows[0], known))
        self._precision = _Precision(device, getattr(torch, config.dtype))
        self.net = net
        self.head: _Head = _Head(head, rows[1], known, self._precision)
        self._body: Any = net.base_model
        self.notes = _provenance(folder)
        self.to(device)

    def forward(self, tokens: Tensor, steps: Tensor, first: int = 0, cache: Any = None) -> Tensor:
        # Token by token the weights are the work, and casting them each time costs more than it saves.
        with contextlib.nullcontext() if cache is not None else self._precision():
            out = self._body(input_ids=tokens.to(self.net.device), past_key_values=cache, use_cache=cache is not None)
        hidden: Tensor = out.last_hidden_state[:, first:]
        return hidden

    def next_logits(self, tokens: Tensor, steps: Tensor, cache: Any) -> Tensor:
        logits: Tensor = self.head(self(tokens, steps, cache=cache)[:, -1], exact=True)
        return logits

    def cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.net.config)

    def keep(self, cache: Any, rows: Tensor) -> Any:
        cache.batch_select_indices(rows.to(self.net.device))
        return cache

    @torch.no_grad()
    def introduce(self, pieces: Mapping[int, Sequence[int]]) -> None:
        embedding = self.net.get_input_embeddings()
        for part in (embedding, self.head):
            for token, known in pieces.items():
                part.rows[token - part.known] = part.table.weight[list(known)].mean(0)


@dataclass(frozen=True)
class PretrainedConfig(ModelConfig):
    """A causal language model: all of its weights are trained, or adapters of low rank (LoRA, Hu et al. 2021).

    The numbers of a trial depend on the model's files, so their digest is part of the config.
    """

    name: ClassVar[str] = "pretrained"
    leading: ClassVar[str | None] = "source"

    source: str = "smollm2-135m"  # a name of `crevasse models pull`, a local folder, or a hub name owner/model
    lora: int = 0  # rank of adapters on all linear layers, which are then all that is trained; 0: every weight is
    alpha: int = 0  # LoRA's scale is alpha/rank; 0: twice the rank
    checkpointing: bool = False  # layers are computed again in the backward pass: less memory, a third more time
    dtype: Dtype = "auto"  # of products; auto: bfloat16 where the hardware multiplies it fast
    device: Literal["auto", "cpu", "cuda"] = "auto"
    #: Of the model's files; filled in, so that another model is another trial.
    digest: str = field(default="", metadata=DERIVED)

    def __post_init__(self) -> None:
        require(0 <= self.lora <= 4096, f"lora is a rank, 0 to 4096, not {self.lora}")
        require(0 <= self.alpha <= 65536, f"alpha of pretrained must lie between 0 and 65536, not {self.alpha}")
        hub.require_extra()
        found = hub.digest(hub.resolve(self.source))
        require(self.digest in ("", found), f"{self.source} has changed since this trial was made (another digest)")
        object.__setattr__(self, "digest", found)
        if self.dtype == "auto":
            object.__setattr__(self, "dtype", _fast_dtype(_device(self.device)))

    def build(self, vocabulary: int, context: int, silent: int = 0) -> Pretrained:
        return Pretrained(self, vocabulary, context)

    def tokenizer(self) -> "HubTokenizer":
        return HubTokenizer(hub.resolve(self.source))

    def needs(self, tokens: int, targets: int) -> Needs:
        """Counted on a model that has shapes but no storage."""
        from transformers import AutoConfig, AutoModelForCausalLM

        auto: Any = AutoModelForCausalLM
        with hub.quiet(), torch.device("meta"):
            c = AutoConfig.from_pretrained(hub.resolve(self.source), local_files_only=True)
            net = auto.from_config(c)
            net = _with_lora(net, self) if self.lora else net
        sizes = [(p.numel(), p.requires_grad) for p in net.parameters()]
        # Rows of added tokens are too few to count. A layer keeps about ten vectors of its width (norms, attention,
        # residuals) and four of the inner width; a target keeps its logits, their softmax and the gradients of both.
        inner = getattr(c, "intermediate_size", None) or 4 * c.hidden_size
        layer = 4 * tokens * (10 * c.hidden_size + 4 * inner)
        input_only = 4 * tokens * c.hidden_size
        layers = layer + c.num_hidden_layers * input_only if self.checkpointing else layer * c.num_hidden_layers
        logits = 4 * targets * 4 * net.get_input_embeddings().num_embeddings
        return Needs(sum(n for n, _ in sizes), sum(n for n, trained in sizes if trained), layers + logits)


class HubTokenizer:
    """A `crevasse.tokenizer.Tokenizer` over a folder's tokenizer files."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        try:
            with hub.quiet():
                self._inner: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as e:
            raise UserError(f"{folder}: its tokenizer cannot be read ({_one_line(e)})") from None
        require(self._inner.eos_token_id is not None, f"{folder}: its tokenizer has no token that ends a text")
        #: Tokens that were added, and what their text was written in before.
        self.pieces: dict[int, list[int]] = {}

    @property
    def size(self) -> int:
        return len(self._inner)

    @property
    def end(self) -> int:
        return int(self._inner.eos_token_id)

    def encode(self, text: str) -> list[int]:
        tokens: list[int] = self._inner.encode(text, add_special_tokens=False)
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        runs: list[list[int]] = [[]]
        for t in tokens:
            if t == self.end:
                runs.append([])
            else:
                runs[-1].append(int(t))
        return "<end>".join(self._inner.decode(run, clean_up_tokenization_spaces=False) for run in runs)

    def token(self, text: str) -> int:
        pieces = self.encode(text)
        if len(pieces) == 1:
            return pieces[0]
        token = self.size
        self._inner.add_tokens([text], special_tokens=False)
        require(self.encode(text) == [token], f"the tokenizer takes no token {text!r} besides its own")
        self.pieces[token] = pieces
        return token


def _load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        with hub.quiet():
            return AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False, use_safetensors=True
            )
    except MemoryError:
        raise
    except Exception as e:
        raise UserError(f"{folder}: it cannot be loaded as a causal language model ({_one_line(e)})") from None


def _with_lora(net: Any, config: PretrainedConfig) -> Any:
    """Adapters in every linear layer but the head; only they are trained, and the rows of added tokens."""
    from peft import LoraConfig, inject_adapter_in_model

    alpha = config.alpha or 2 * config.lora
    adapters = LoraConfig(r=config.lora, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    with hub.quiet():
        return inject_adapter_in_model(adapters, net)


def _recompute(net: Any, source: str) -> None:
    require(net.supports_gradient_checkpointing, f"{source} cannot compute its layers again (checkpointing)")
    net.activation_checkpointing_enable({"use_reentrant": False})
    for module in net.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.training = True


@torch.no_grad()
def _require_plain_head(net: Any) -> None:
    """Some families change logits after the head; then our loss would be another one than theirs."""
    tokens = torch.arange(1, 5, device=net.device)[None]
    theirs = net(input_ids=tokens).logits.float()
    ours = net.get_output_embeddings()(net.base_model(input_ids=tokens).last_hidden_state).float()
    require(
        torch.allclose(theirs, ours, atol=1e-3, rtol=1e-3),
        f"models of type {net.config.model_type} change their logits after the head, which crevasse does not do",
    )


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    require(wanted == "cpu" or torch.cuda.is_available(), "device=cuda was asked for, but torch finds no GPU here")
    return wanted


def _fast_dtype(device: str) -> Dtype:
    if device == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if fast else "float32"


def _provenance(folder: Path) -> tuple[str, ...]:
    """What a pulled model says of itself."""
    file = folder / "PROVENANCE.json"
    return (str(json.loads(file.read_text())["about"]),) if file.exists() else ()


def _one_line(e: Exception) -> str:
    text = " ".join(str(e).split())
    return text if len(text) <= 200 else text[:197] + "…"
