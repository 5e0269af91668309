"""The lockstep meter in a PyTorch loop of your own: training stays bitwise what it is without.

`LockstepWatch` reads the loss of the same rows of both sides before training and now and then, as often as 4% of the
cost of training pays for (`meter.pace`: counted, not timed), and says which share of the progress is memory.

A reading leaves no trace. It runs without gradients and with every module in eval mode, so that BatchNorm uses its
running statistics and leaves them alone; afterwards each module's mode, every buffer and the state of every generator
of torch, numpy, Python and the model's devices are what they were.
"""

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy

from crevasse.errors import UserError
from crevasse.integrations.meter import LockstepMeter, Reading, pace, rows_for

BLOCK = 4096  # rows whose bytes are looked at together

#: A tensor, or a tuple, list or dictionary of tensors, with rows on the first axis.
Batch = Any


class LockstepWatch:
    """Counts optimizer steps, reads when it is time, and says whether progress has turned into memory.

        watch = LockstepWatch(model, loss_of, train=(x, y), held_out=(x_held, y_held), steps=3000, batch=128)
        for ...:
            ...                          # your step
            if watch.step(): break       # True once progress has turned into memory

    loss_of(model, batch): the mean loss over the rows of a batch, a tensor with one element.
    train, held_out: rows that are trained on, and rows that must not be, as a tensor or a tuple, list or dictionary of
    tensors; give all that you have, `rows` of each are picked, always the same (None: 64, and up to 256 where 4% of the
    cost of training pays for them). batch: rows of one optimizer step of
    this process, accumulated ones included. steps: how many there will be; None if not known. every: steps between
    readings instead of what 4% pays for. say: is given one line at each reading but the first, `print` for one.

    The first reading is made at once, before anything is trained. Rows go through the model at most `batch` at a time,
    and the loss is the mean of these pieces' means, weighed by their rows. Raises UserError for what cannot be read.

    `meter` keeps the readings, `cost` is their share of the cost of training, as counted, `memorising` what the last
    of them says.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_of: Callable[[Any, Any], torch.Tensor],
        *,
        train: Batch,
        held_out: Batch,
        batch: int,
        steps: int | None = None,
        rows: int | None = None,
        every: int | None = None,
        meter: LockstepMeter | None = None,
        say: Callable[[str], object] | None = None,
    ) -> None:
        for name, value in (("batch", batch), ("steps", steps), ("rows", rows), ("every", every)):
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")
        sides = {"train": _columns("train", train), "held_out": _columns("held_out", held_out)}
        _refuse_difference(train, held_out, sides["train"], sides["held_out"])
        _refuse_overlap(sides["train"], sides["held_out"])
        parameters = list(model.parameters())
        if not parameters:
            raise UserError("the model has no parameters")
        if any(map(is_lazy, [*parameters, *model.buffers()])):
            raise UserError("the model has lazy parameters without a shape: run it once before it is watched")
        # What communicates does so in training alone; the wrapped module has the same weights.
        self._model: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
        self._loss_of, self._say, self._batch = loss_of, say, batch
        rows = rows or rows_for(batch, steps)
        chosen = [picked(_length(columns), rows) for columns in sides.values()]
        self._rows = [_pick(side, i) for side, i in zip((train, held_out), chosen, strict=True)]
        self.meter = LockstepMeter() if meter is None else meter
        self.every, self.cost = pace(batch, steps, sum(map(len, chosen)), every)
        self.steps, self.count, self.memorising = steps, 0, False
        self.meter.readings.clear()
        self.read()

    def step(self) -> bool:
        """Count an optimizer step, and read if it is time. -> memorising"""
        self.count += 1
        if self.count % self.every == 0 or self.count == self.steps:
            self.read()
        return self.memorising

    def read(self) -> None:
        """Read now, at the end of a loop that ended early for one. A step is read once."""
        readings = self.meter.readings
        if readings and readings[-1].step >= self.count:
            return
        with as_it_was(self._model, reading=True):
            train, held_out = (self._loss(side) for side in self._rows)
        self.meter.note(self.count, train, held_out)
        self.memorising = self.meter.memorising_now
        if self._say is not None and len(readings) > 1:
            self._say(self.meter.line())

    def state_dict(self) -> dict[str, Any]:
        """All that goes on after a restart, as JSON can hold it: steps counted and readings. No number is None."""
        readings = [[r.step, *(v if math.isfinite(v) else None for v in r[1:])] for r in self.meter.readings]
        return {"count": self.count, "readings": readings, "rows": self._digest()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken. Raises UserError if other rows are read now."""
        if missing := {"count", "readings", "rows"} - set(state):
            raise UserError(f"this is no state of a watch: {', '.join(sorted(missing))} missing")
        if state["rows"] != self._digest():
            raise UserError("the state is of other rows than those that are read now: give the same ones, and as many")
        self.count = int(state["count"])
        kept = [[math.nan if v is None else v for v in r] for r in state["readings"]]
        self.meter.readings[:] = [Reading(int(step), float(a), float(b)) for step, a, b in kept]
        self.memorising = self.meter.memorising_now

    def _loss(self, side: Batch) -> float:
        device = next(self._model.parameters()).device
        n, total = _length(_parts(side)), 0.0
        for i in range(0, n, self._batch):
            piece = _map(side, partial(_piece, i, self._batch, device))
            loss = self._loss_of(self._model, piece)
            if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
                what = f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
                raise UserError(f"loss_of must return the mean loss as a tensor with one element, not {what}")
            total += min(self._batch, n - i) * float(loss)
        return total / n

    def _digest(self) -> str:
        """Stands for the rows that are read."""
        seen = hashlib.sha256()
        for side in self._rows:
            for row in _fingerprints(_parts(side)):
                seen.update(row)
        return seen.hexdigest()[:16]


def picked(n: int, rows: int) -> list[int]:
    """Which of n rows are read, drawn from a generator of its own, in their order."""
    return sorted(np.random.default_rng(0).permutation(n)[:rows].tolist())


@contextmanager
def as_it_was(model: nn.Module, reading: bool = False) -> Iterator[None]:
    """Whatever happens inside, training goes on as if it had not: every generator draws what it would have drawn.

    reading: the model is run. Without gradients, in eval mode; then its modes and buffers are put back too.
    """
    with _randomness_kept(model):
        if not reading:
            yield
            return
        # Autocast keeps the weights that it has cast; those of a reading, without gradients, are not for training.
        cache = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        try:
            with torch.no_grad(), _modes_kept(model), _buffers_kept(model):
                yield
        finally:
            torch.set_autocast_cache_enabled(cache)


@contextmanager
def _modes_kept(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode, then each as it was. The flags alone: a module's own train() may do more."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Some modules count or average whenever they run. What was written to comes back; what was not is not touched."""
    kept = [
        (module, name, buffer, buffer.clone(), buffer._version)
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, name, buffer, before, version in kept:
            if module._buffers.get(name) is not buffer:
                module._buffers[name] = buffer
            if buffer._version != version:
                buffer.copy_(before)


@contextmanager
def _randomness_kept(model: nn.Module) -> Iterator[None]:
    """Whatever rows, collator or model draw, training draws what it would have drawn."""
    devices = {p.device for p in model.parameters() if p.device.type != "cpu"}
    rooms: list[tuple[Any, Any]] = [
        (getattr(torch, d.type, None), () if d.index is None or d.type == "mps" else (d,)) for d in devices
    ]
    on_devices = [(m, where, m.get_rng_state(*where)) for m, where in rooms if hasattr(m, "get_rng_state")]
    python, arrays, tensors = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
        torch.set_rng_state(tensors)
        for module, where, state in on_devices:
            module.set_rng_state(state, *where)


def _parts(batch: Batch) -> dict[str, Any]:
    """What a batch is made of, by name: '' for a tensor alone."""
    if isinstance(batch, Mapping):
        return {str(k): v for k, v in batch.items()}
    if isinstance(batch, tuple | list):
        return {str(i): v for i, v in enumerate(batch)}
    return {"": batch}


def _columns(name: str, batch: Batch) -> dict[str, torch.Tensor]:
    """The tensors of a batch. Raises UserError if it is none, has no rows, or not as many in each tensor."""
    parts = _parts(batch)
    for where, part in parts.items():
        at = f" ({where!r})" if where else ""
        if not isinstance(part, torch.Tensor):
            raise UserError(
                f"{name} must be a tensor, or a tuple, list or dict of tensors, with rows on the first axis; "
                f"{type(part).__name__}{at} is none: no fixed rows can be read from it"
            )
        if not part.ndim:
            raise UserError(f"{name}{at} is a single number: it has no rows")
    if len(lengths := {len(part) for part in parts.values()}) > 1:
        raise UserError(f"the tensors of {name} have {', '.join(map(str, sorted(lengths)))} rows: not as many each")
    if not lengths or not max(lengths):
        raise UserError(f"{name} is empty")
    return parts


def _length(columns: dict[str, torch.Tensor]) -> int:
    return len(next(iter(columns.values())))


def _map(batch: Batch, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """The same structure with every tensor changed."""
    if isinstance(batch, Mapping):
        return {k: change(v) for k, v in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [change(v) for v in batch]
        if hasattr(batch, "_fields"):  # a named tuple
            return type(batch)(*parts)
        return parts if isinstance(batch, list) else tuple(parts)
    return change(batch)


def _piece(start: int, n: int, device: torch.device, t: torch.Tensor) -> torch.Tensor:
    return t[start : start + n].to(device)


def _pick(batch: Batch, rows: list[int]) -> Batch:
    """Copies of these rows: what happens to the data later does not reach them."""
    return _map(batch, lambda t: t.detach()[torch.tensor(rows, device=t.device)])


def _refuse_difference(
    train: Batch, held_out: Batch, one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]
) -> None:
    """Raises UserError unless both sides are built alike; lengths of rows may differ."""
    looks = [
        (type(batch).__name__, {k: (v.dtype, v.ndim) for k, v in columns.items()})
        for batch, columns in ((train, one), (held_out, other))
    ]
    if looks[0] == looks[1]:
        return
    shown = [
        f"{kind} of {', '.join((f'{k}: ' if k else '') + f'{str(d)[6:]} in {n}-d' for k, (d, n) in parts.items())}"
        for kind, parts in looks
    ]
    raise UserError(f"train and held_out are not built alike: {shown[0]} and {shown[1]}")


def _fingerprints(columns: dict[str, torch.Tensor]) -> Iterator[bytes]:
    """A fingerprint of each row, all of its tensors together."""
    shapes = repr([tuple(t.shape[1:]) for t in columns.values()]).encode()
    for i in range(0, _length(columns), BLOCK):
        blocks = [t.detach()[i : i + BLOCK].cpu() for t in columns.values()]
        flat = [(b.flatten(1) if b.ndim > 1 else b[:, None]).contiguous().view(torch.uint8).numpy() for b in blocks]
        for row in np.concatenate(flat, axis=1):
            yield hashlib.blake2b(shapes + row.tobytes(), digest_size=16).digest()


def _refuse_overlap(train: dict[str, torch.Tensor], held_out: dict[str, torch.Tensor]) -> None:
    """Raises UserError where a held-out row is also trained on; it names up to three of them."""
    where: dict[bytes, int] = {}
    for j, row in enumerate(_fingerprints(held_out)):
        where.setdefault(row, j)
    found: dict[int, int] = {}
    for i, row in enumerate(_fingerprints(train)):
        if (j := where.get(row, -1)) >= 0:
            found.setdefault(j, i)
    if found:
        shown = ", ".join(f"row {j} is training row {i}" for j, i in sorted(found.items())[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UserError(f"{len(found)} held-out rows are also trained on: {shown}{more}; take them out")
