"""Work that a batch shares: where the same thing would be computed for several places, it is computed once.

A causal model's state depends on the tokens up to it alone. So the first layer reads a table of (token, position)
pairs instead of the batch, and rows that begin alike have one state for their common beginning. Hidden states are
kept flat, one row a *node*; `Places` say at which node each place of the batch stands. Loss and gradient are the same
numbers, up to the order of additions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

#: Sharing beginnings costs gathering and scattering; it has to leave at most so many of the places to compute.
WORTH = 0.85


@dataclass(frozen=True)
class Places:
    """Where the states of a batch stand."""

    rows: int
    length: int
    node: Tensor | None = None  # (row · position,) the node at each place; None: one each, in order
    place: Tensor | None = None  # (node,) a place of each node; None: all, in order

    def spread(self, x: Tensor, first: int = 0) -> Tensor:
        """(node, …) -> (row, position − first, …): the states at all places from column `first` on."""
        if self.node is None:
            return x.view(self.rows, self.length, -1)[:, first:]
        node = self.node.view(self.rows, self.length)[:, first:] if first else self.node
        return F.embedding(node, x).view(self.rows, self.length - first, -1)

    def gather(self, x: Tensor) -> Tensor:
        """(row, position, …) -> (node, …)"""
        x = x.reshape(self.rows * self.length, -1)
        return x if self.place is None else F.embedding(self.place, x)

    def move(self, x: Tensor, to: "Places") -> Tensor:
        """States at these nodes, at the nodes of other places of the same shape."""
        if self.node is None:
            return x if to.place is None else F.embedding(to.place, x)
        return F.embedding(self.node if to.place is None else self.node[to.place], x)


def shared_beginnings(tokens: Tensor) -> Places:
    """One node for each different beginning of the rows. tokens (row, position)"""
    rows, length = tokens.shape
    columns, places = [], []
    ids, count, nodes = torch.zeros(rows, dtype=torch.int64), 1, 0
    base = int(tokens.max()) + 1
    for t in range(length):
        if count < rows:  # else all rows differ already
            found, ids = torch.unique(ids * base + tokens[:, t], return_inverse=True)
            count = len(found)
            # The first row of each, whatever the order in which threads write.
            first = torch.full((count,), rows).scatter_reduce(0, ids, torch.arange(rows), "amin")
        columns.append(ids + nodes)
        places.append(first * length + t)
        nodes += count
    if nodes > WORTH * rows * length:
        return Places(rows, length)
    return Places(rows, length, torch.stack(columns, 1).flatten(), torch.cat(places))
