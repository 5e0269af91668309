"""The lockstep meter inside a Hugging Face Trainer: training stays bitwise what it is without.

`LockstepCallback` reads the loss of the same rows of both datasets at the beginning, every `every` optimizer steps
and at the end, with the trainer's own model and collator.

What it costs is counted, not timed (`meter.pace`). A forward pass of a row is 1, forward and backward are 3. A reading
then costs 2·rows, fewer where a side is smaller, and a step of this process 3·B, where B is the batch size on the
device times the gradient accumulation steps. Of S steps in all, as many readings are made as cost at most 4%:
0.04·3·B·S/(2·rows), but no fewer than 8, without which there is no curve, and no more than 60. `callback.cost` is what
it came to.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crevasse.errors import UserError
from crevasse.integrations.meter import LockstepMeter, pace, rows_for
from crevasse.integrations.watch import as_it_was, picked

try:
    from transformers import TrainerCallback
except ImportError as e:
    raise ImportError(
        f"the meter for Trainer needs transformers and accelerate (pip install 'crevasse[llm]'): {e}"
    ) from None

IGNORED = -100  # the label of a token that carries no loss
READINGS, PICTURE = "meter.csv", "meter.html"

#: Losses that compare the output at a token with the label of the next one. None is what older models carry.
_SHIFTED = (None, "ForCausalLM", "ForConditionalGeneration")

Batch = tuple[Any, int]  # what the model is called with, on the CPU, and its number of targets


class LockstepCallback(TrainerCallback):
    """Reads training and held-out loss in step and keeps them in `meter`.

    train_rows, held_out_rows: what the trainer trains on and what it must not see, tokenised alike, with a length.
    rows: how many of each are read, always the same (None: 64, up to 256 where 4% of the cost pays for them).
    every: optimizer steps between readings; None for about 4% of the cost of training. collator: None for that of the
    trainer. stop: end training at the first reading that says that progress has turned into memory
    (`meter.memorising_now`).

    meter.csv grows in the trainer's output_dir as training goes on, and meter.html is drawn at its end, by the
    first process alone; the others read the same. Each training starts the meter anew.
    """

    def __init__(
        self,
        train_rows: Any,
        held_out_rows: Any,
        *,
        rows: int | None = None,
        every: int | None = None,
        meter: LockstepMeter | None = None,
        collator: Callable[[list[Any]], Any] | None = None,
        stop: bool = False,
    ) -> None:
        for name, value in (("rows", rows), ("every", every)):
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")
        for name, data in (("training rows", train_rows), ("held-out rows", held_out_rows)):
            if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
                raise UserError(
                    f"the {name} have no length, so no fixed rows can be read: give a dataset, not a stream"
                )
            if not len(data):
                raise UserError(f"the {name} are empty")
        self.meter = LockstepMeter() if meter is None else meter
        self.stop = stop
        self.every = every or 0
        self.cost = math.nan
        self.picture: Path | None = None
        self._asked_every, self._asked_rows, self._collator = every, rows, collator
        self._rows = rows or 0
        self._data: tuple[Any, Any] = (train_rows, held_out_rows)
        self._batches: tuple[list[Batch], ...] = ()

    # --- what the trainer calls ---

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refuse what cannot be measured, choose and collate the rows, and read for the first time."""
        model, loader = kwargs["model"], kwargs["train_dataloader"]
        collate = self._collator or loader.collate_fn
        size = state.train_batch_size or args.train_batch_size
        self._set_pace(size * args.gradient_accumulation_steps, state.max_steps - state.global_step)
        with as_it_was(model):
            kept = _columns(loader) if self._collator is None else None
            _refuse_overlap(*self._data, kwargs.get("processing_class"))
            self._batches = tuple(
                self._collate(data, name, collate, kept, size, _shifted(model))
                for data, name in zip(self._data, ("training", "held-out"), strict=True)
            )
        self.meter.readings.clear()
        self._read(args, state, model)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read where it is time."""
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps:
            self._read(args, state, kwargs["model"])
            if self.stop and self.meter.memorising_now:
                control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The last reading, unless the trainer has put an earlier model in the place of the last; the picture."""
        if not args.load_best_model_at_end:
            self._read(args, state, kwargs["model"])
        self.picture = Path(args.output_dir) / PICTURE
        if state.is_world_process_zero and len(self.meter.readings) > 1:
            self.meter.picture(self.picture)
        self._batches = ()

    # --- how it works ---

    def _set_pace(self, batch: int, steps: int) -> None:
        self._rows = self._asked_rows or rows_for(batch, steps)
        reading = sum(min(self._rows, len(data)) for data in self._data)
        self.every, self.cost = pace(batch, steps, reading, self._asked_every)

    def _collate(
        self, data: Any, name: str, collate: Callable[[list[Any]], Any], kept: set[str] | None, size: int, shifted: bool
    ) -> list[Batch]:
        """The rows that are read, as batches with their number of targets. Raises UserError if there are none."""
        rows = [_only(data[i], kept) for i in picked(len(data), self._rows)]
        batches = [collate(rows[i : i + size]) for i in range(0, len(rows), size)]
        counted = [(batch, _targets(batch, name, shifted)) for batch in batches]
        if not any(n for _, n in counted):
            raise UserError(f"no token of the {len(rows)} {name} rows carries loss: all labels are {IGNORED}")
        return [(batch, n) for batch, n in counted if n]

    def _read(self, args: Any, state: Any, model: nn.Module) -> None:
        step, readings = state.global_step, self.meter.readings
        if readings and readings[-1].step >= step:
            return
        with as_it_was(model, reading=True):
            train, held_out = (_loss(model, batches) for batches in self._batches)
        self.meter.note(step, train, held_out)
        if state.is_world_process_zero:
            self.meter.write(Path(args.output_dir) / READINGS)


def _loss(model: nn.Module, batches: Sequence[Batch]) -> float:
    """Mean over all targets of all batches; the model's own loss is the mean over those of one."""
    device = next(model.parameters()).device
    total = torch.zeros((), dtype=torch.float64)
    for batch, n in batches:
        outputs = model(**{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()})
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs[0]
        if loss is None:
            raise UserError(f"{type(model).__name__} returned no loss: the meter needs a model that computes its own")
        total += n * loss.detach().double().mean().cpu()
    return float(total) / sum(n for _, n in batches)


def _shifted(model: nn.Module) -> bool:
    """Does the model compare its output at a token with the label of the next one?"""
    base: Any = model
    if hasattr(base, "get_base_model"):  # an adapter's wrapping
        base = base.get_base_model()
    config = getattr(base, "config", None)
    return getattr(base, "loss_type", "") in _SHIFTED and not getattr(config, "is_encoder_decoder", False)


def _targets(batch: Any, name: str, shifted: bool) -> int:
    """How many labels the loss of a batch is the mean of."""
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if not isinstance(labels, torch.Tensor):
        raise UserError(f"the {name} rows have no labels once collated: give rows, or a collator, that make them")
    if shifted and labels.ndim > 1:
        labels = labels[..., 1:]
    return int((labels != IGNORED).sum())


def _columns(loader: Any) -> set[str] | None:
    """The columns that reach the trainer's collator, or None for all: the trainer drops those a model cannot take."""
    try:
        row = loader.dataset[0]
    except (TypeError, AttributeError, NotImplementedError, LookupError):  # a stream: its collator drops them itself
        return None
    return set(row) if isinstance(row, Mapping) else None


def _only(row: Any, kept: set[str] | None) -> Any:
    return {k: v for k, v in row.items() if k in kept} if kept is not None and isinstance(row, Mapping) else row


def _key(row: Any) -> bytes:
    """A row's tokens without padding. The text that they came from may stand beside them and does not count."""
    if isinstance(row, Mapping) and "input_ids" in row:
        tokens, mask = _plain(row["input_ids"]), _plain(row.get("attention_mask"))
        return repr([t for t, seen in zip(tokens, mask, strict=True) if seen] if mask else tokens).encode()
    if isinstance(row, Mapping):
        return repr(sorted((k, _plain(v)) for k, v in row.items())).encode()
    return repr(_plain(row)).encode()


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _refuse_overlap(train: Any, held_out: Any, tokenizer: Any) -> None:
    """Raises UserError where a held-out row is also trained on; it names up to three of them."""
    where: dict[bytes, int] = {}
    for i in range(len(held_out)):
        where.setdefault(_key(held_out[i]), i)
    found: dict[int, int] = {}
    for i in range(len(train)):
        if (j := where.get(_key(train[i]))) is not None:
            found.setdefault(j, i)
    if not found:
        return
    shown = [f"row {j} is training row {i}{_text(held_out[j], tokenizer)}" for j, i in sorted(found.items())[:3]]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    raise UserError(f"{len(found)} held-out rows are also trained on: {', '.join(shown)}{more}; take them out")


def _text(row: Any, tokenizer: Any) -> str:
    """The row as people read it, if that can be had."""
    if not (hasattr(tokenizer, "decode") and isinstance(row, Mapping) and "input_ids" in row):
        return ""
    text = " ".join(str(tokenizer.decode(_plain(row["input_ids"]), skip_special_tokens=True)).split())
    return f" ({text[:40] + '…' if len(text) > 40 else text!r})"
