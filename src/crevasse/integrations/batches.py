"""Batches as users have them: a tensor, or tuples, lists and dictionaries of tensors with rows on the first axis."""

import copy
import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from crevasse.errors import UserError
from crevasse.objectives import IGNORED


def rows_of(batch: Any) -> int:
    """How many rows a batch has. Raises UserError where its tensors do not agree, or where there is none."""
    sizes = {len(t) if t.dim() else 0 for t in tensors(batch)}
    if len(sizes) != 1 or sizes == {0}:
        have = (
            "no tensor"
            if not sizes
            else "no rows"
            if sizes == {0}
            else "tensors of " + ", ".join(map(str, sorted(sizes))) + " rows"
        )
        raise UserError(f"a batch has to be tensors with the same number of rows; this one has {have}")
    return sizes.pop()


def tensors(batch: Any) -> Iterator[Tensor]:
    """All tensors of a batch, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for key in sorted(batch, key=str):  # two of the same contents are the same
            yield from tensors(batch[key])
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from tensors(value)


def cut(batch: Any, start: int, stop: int) -> Any:
    """Some rows of a batch, in the same form.

    Lists and arrays with an entry for each row are cut too; what has no rows stays.
    """
    return _cut(batch, start, stop, rows_of(batch))


def _cut(batch: Any, start: int, stop: int, rows: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[start:stop]
    if isinstance(batch, Mapping):
        found: Any = copy.copy(batch)
        for key, value in batch.items():
            found[key] = _cut(value, start, stop, rows)
        return found
    if isinstance(batch, list | tuple) and any(isinstance(v, Tensor | Mapping | list | tuple) for v in batch):
        return _like(batch, [_cut(value, start, stop, rows) for value in batch])
    if hasattr(batch, "__getitem__") and hasattr(batch, "__len__") and not isinstance(batch, str | bytes):
        return batch[start:stop] if len(batch) == rows else batch
    return batch


def _like(batch: Any, values: list[Any]) -> Any:
    """A list, tuple or named tuple of other values."""
    return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)


def pieces(batches: tuple[Any, ...], parts: int) -> list[list[Any]]:
    """For each part the batches, or slices of them, that it consists of: the same number for each, in order.

    Where the number of batches is no multiple of the parts, each batch is cut into as few slices as make it one, whose
    sizes differ by one row at most. Raises UserError for a batch that has too few rows for that.
    """
    slices = parts // math.gcd(len(batches), parts)
    if slices > 1:
        found = []
        for batch in batches:
            rows = rows_of(batch)
            if rows < slices:
                raise UserError(f"a batch of {rows} rows cannot be split into {slices} microbatches")
            found += [cut(batch, rows * i // slices, rows * (i + 1) // slices) for i in range(slices)]
        batches = tuple(found)
    each = len(batches) // parts
    return [list(batches[i * each : (i + 1) * each]) for i in range(parts)]


def swapped(batch: Any, share: float, generator: torch.Generator) -> Any:
    """A share of the rows are given the label of another one. Labels: the second of a pair, or the entry ``labels``.

    Raises UserError where a batch has no such place. A label of several tokens is swapped where both carry loss.
    """

    def swap(labels: Tensor) -> Tensor:
        count = len(labels)
        chosen = torch.rand(count, generator=generator) < share
        other = torch.randint(1, max(count, 2), (count,), generator=generator) + torch.arange(count)
        theirs = labels[(other % count).to(labels.device)]
        change = chosen.to(labels.device).view(-1, *[1] * (labels.dim() - 1)).expand_as(labels)
        if labels.dim() > 1 and not labels.is_floating_point():
            change = change & (labels != IGNORED) & (theirs != IGNORED)
        return torch.where(change, theirs, labels)

    if isinstance(batch, list | tuple) and len(batch) == 2 and isinstance(batch[1], Tensor):
        return _like(batch, [batch[0], swap(batch[1])])
    if isinstance(batch, Mapping) and isinstance(batch.get("labels"), Tensor):
        found: Any = copy.copy(batch)
        found["labels"] = swap(batch["labels"])
        return found
    raise UserError("label noise needs to find the labels: a batch of (inputs, labels), or a dictionary with labels")


def contents(batch: Any) -> dict[bytes, int]:
    """A digest of each row, and where it first stands."""
    found: dict[bytes, int] = {}
    columns = [t.detach().cpu().contiguous() for t in tensors(batch)]
    for row in range(rows_of(batch)):
        sha = hashlib.blake2b(digest_size=16)
        for column in columns:
            sha.update(column[row].reshape(-1).view(torch.uint8).numpy().tobytes())
        found.setdefault(sha.digest(), row)
    return found
