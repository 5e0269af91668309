"""Sums over what belongs together in a vector of weights, and back again to its entries."""

from collections.abc import Callable

import torch
from torch import Tensor

from crevasse.rules.layout import Layout, Part

#: Does each row of a part stand for itself? Otherwise the part is one.
Apart = Callable[[Part], bool]


def gathered(layout: Layout, vector: Tensor, apart: Apart) -> Tensor:
    """The sum over each scope, a row of a part or the whole part. (…, parameter) -> (…, scope)"""
    rows = torch.split(layout.row_sums(vector), [part.rows for part in layout.parts], -1)
    return torch.cat(
        [piece if apart(part) else piece.sum(-1, keepdim=True) for part, piece in zip(layout.parts, rows, strict=True)],
        -1,
    )


def scattered(layout: Layout, values: Tensor, apart: Apart) -> Tensor:
    """The inverse shape: each scope's value at all its entries. (…, scope) -> (…, parameter)"""
    pieces = torch.split(values, [part.rows if apart(part) else 1 for part in layout.parts], -1)
    return layout.spread(
        torch.cat(
            [piece.expand(*piece.shape[:-1], part.rows) for part, piece in zip(layout.parts, pieces, strict=True)],
            -1,
        )
    )
