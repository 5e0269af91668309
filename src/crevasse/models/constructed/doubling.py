"""A transformer of m layers that multiplies 2^m elements of a finite monoid, by pairwise doubling."""

import math
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from crevasse.models.constructed.automata import SHARP, cleared
from crevasse.models.layers import Head
from crevasse.models.transformer import Block, Transformer
from crevasse.spec import require

Ints = NDArray[np.int64]

#: Score by which the attended position leads its neighbours: what leaks is e to the minus this.
LEAD = 30.0
#: Of the two one-hots that a hidden unit adds up, one alone gives SLOPE, which has to stay below the threshold; and
#: the threshold leaves 1 of both.
SLOPE = 1.25
THRESHOLD = 2 * SLOPE - 1
#: The longest context in which float32 still tells neighbouring positions apart.
LONGEST = 1024


class Ask(NamedTuple):
    """Tokens of formats in which a mark asks for the answer, and another one ends it."""

    mark: int  # the last token of the problem; the answer, one token, is written after it
    end: int  # what is written after the answer


def doubling_width(elements: int, layers: int) -> int:
    """The least even width that `set_doubling` takes: room for its coordinates twice, and a quarter of its units."""
    return max(2 * _offsets(elements, layers)[-1], 2 * math.ceil((elements + 1) * elements / 8))


@torch.no_grad()
def set_doubling(
    model: Transformer, table: Ints, tokens: Ints, elements: Ints, answers: Ints, ask: Ask | None = None
) -> None:
    """Overwrite all weights of a freshly built transformer of m layers, so that it multiplies the last 2^m tokens.

    table (element, element): left times right, of a finite monoid; tokens (symbol,): their numbers; elements
    (symbol,): what each stands for, while all other tokens stand for the identity; answers (element,): the token that
    each is read out as. With `ask`, every position stands for the one before it, so that the mark takes no room.

    After layer k each position holds the product of the last 2^k tokens (the scan of Hillis, Steele 1986; with layers
    of attention: Liu et al. 2023). The next layer reads the product that stands 2^k before (attention on an angle,
    turned back), and a hidden unit for each pair of elements puts their product in the place of both. Before the start
    there is the identity: the place tells it, and what was read is erased. Coordinates are there twice, the second
    time with the other sign, and all codes have constant norms: so layer norms are known factors, and are taken off.
    What leaks in attention stays below the threshold of the units; what the one of a one-hot is off by rounding, about
    1e-6, may grow by 2 · SLOPE a layer. Raises UserError where the model is too small or of another kind, or the table
    no monoid.
    """
    count, one = len(table), _identity(table)
    block = model.blocks[0]
    assert isinstance(block, Block)
    width, heads, layers = model.embed.embedding_dim, block.heads, len(model.blocks)
    require(
        tokens.shape == elements.shape and answers.shape == (count,),
        f"{count} elements take as many answers, and each token an element",
    )
    context = learned(model)
    least, part, half = doubling_width(count, layers), width // heads, width // 2
    require(
        width >= least and width % 2 == 0 and heads >= 2 and part >= count,
        f"{count} elements take a transformer of {layers} layers of an even width of at least {least}, with 2 or more "
        f"heads of {count} or more each, not width {width} with {heads} heads",
    )
    p = cleared(model)
    seed, product, left, angle, early, asks, rest = (slice(a, b) for a, b in pairwise(_offsets(count, layers)))
    every, shift = torch.eye(half), int(ask is not None)

    # Embeddings: element and mark have the norm 2, a place has 1 + layers.
    size = len(p["embed.weight"])
    element = torch.full((size,), one)
    element[within(tokens, 0, size)] = within(elements, 0, count)
    token = torch.zeros(size, half)
    token[:, seed] = F.one_hot(element, count).float()
    token[:, asks] = asked(size, ask)
    p["embed.weight"].copy_(twice(token))
    turn, at = math.pi / context, torch.arange(context)  # half a circle: what would stand before 0 is nearest to 0
    place = torch.zeros(context, half, dtype=torch.float64)
    place[:, angle] = torch.stack([(at * turn).cos(), (at * turn).sin()], 1).double()
    place[:, early] = (at[:, None] < 2 ** torch.arange(layers) + shift).double()
    place[:, rest] = (layers - place[:, early].sum(1, keepdim=True)).sqrt()
    p["place.weight"].copy_(twice(place))

    for k in range(layers):
        b = {name.removeprefix(f"blocks.{k}."): w for name, w in p.items() if name.startswith(f"blocks.{k}.")}
        # Elements in the stream, each of norm 1: at first the token, then the product besides, and what is read.
        b["norm1.weight"].fill_(undone(model, layers + 3 + (k > 0)))
        b["norm2.weight"].fill_(undone(model, layers + 5))
        # The head that reads the left factor; in the first layer another one puts the right factor in its place.
        reads = [(2**k + shift, left), (shift, product)] if k == 0 else [(2**k, left)]
        lead = LEAD / (1 - math.cos(turn)) * math.sqrt(part)
        for head, (back, to) in enumerate(reads):
            cos, sin = math.cos(min(back, context) * turn), math.sin(min(back, context) * turn)
            rows, values = (slice(head * part, head * part + n) for n in (2, count))
            b["qkv.weight"][rows, angle] = lead * torch.tensor([[cos, sin], [-sin, cos]])
            b["qkv.weight"][width:][rows, angle] = torch.eye(2)
            b["qkv.weight"][2 * width :][values, product if k else seed] = torch.eye(count)
            b["out.weight"][:, values] = twice(every[to]).T
        # The MLP: a unit for each pair, unless it is early, and one for each element that is to be erased then.
        x, y = (i.flatten() for i in torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij"))
        is_early, times = every[early][k], torch.from_numpy(table)[x, y]
        units = slice(count**2 + count)
        pairs = SLOPE * (every[left][x] + every[product][y]) - 2 * is_early
        b["up.weight"][units, :half] = torch.cat([pairs, SLOPE * (every[left] + is_early)])
        b["up.bias"][units] = -THRESHOLD
        moved = every[product][times] - every[product][y] - every[left][x]
        b["down.weight"][:, units] = twice(torch.cat([moved, -every[left]])).T

    p["norm.weight"].fill_(undone(model, layers + 4))
    weight = p["head.weight"]
    weight.index_add_(0, written(model, answers), SHARP * F.pad(every[product], (0, width - half)))
    if ask is not None:
        weight[written(model, np.array([ask.end])), asks] = -2 * SHARP


def _offsets(elements: int, layers: int) -> list[int]:
    """Where each kind of coordinate starts: token, product, left factor, angle, early places, mark, rest of the norm.

    The last entry is their number.
    """
    return list(accumulate([0, elements, elements, elements, 2, layers, 1, 1]))


def _identity(table: Ints) -> int:
    """The element that changes nothing. Raises UserError for what is no monoid."""
    count = len(table)
    each = np.arange(count)
    closed = table.shape == (count, count) and bool(((table >= 0) & (table < count)).all())
    require(closed, f"a table of {count} elements takes as many columns, and entries from 0 to {count - 1}")
    ones = np.flatnonzero((table == each).all(1) & (each == table.T).all(1))
    require(len(ones) > 0, "a monoid has an element that changes nothing")
    require(bool((table[table] == table[:, table]).all()), "products of a monoid do not depend on the brackets")
    return int(ones[0])


# --- what both constructed transformers need ------------------------------------------------------------------------
def twice(content: Tensor) -> Tensor:
    """(…, half) -> (…, width), of mean 0"""
    return torch.cat([content, -content], -1)


def undone(model: Transformer, square: float) -> float:
    """The weight by which a layer norm leaves content of this squared norm, which is there twice, as it is."""
    return math.sqrt(2 * square / model.embed.embedding_dim + model.norm.eps)


def learned(model: Transformer) -> int:
    """The longest context of the model. Raises UserError unless it can be told apart, position by position."""
    require(model.place is not None, "weights are set in a transformer with position=learned")
    assert model.place is not None
    context = model.place.num_embeddings
    require(context <= LONGEST, f"weights are set for contexts of at most {LONGEST} tokens, not {context}")
    return context


def within(numbers: Ints, low: int, high: int) -> Tensor:
    """The numbers. Raises UserError unless low ≤ number < high."""
    fits = bool(((numbers >= low) & (numbers < high)).all())
    require(fits, f"tokens and elements of this model are numbered from {low} to {high - 1}")
    return torch.from_numpy(numbers).long()


def written(model: Transformer, tokens: Ints) -> Tensor:
    """The rows of the head that write these tokens. Raises UserError for those that it never writes."""
    head = model.head
    assert isinstance(head, Head)
    return within(tokens, head.silent, head.silent + head.out_features) - head.silent


def asked(size: int, ask: Ask | None) -> Tensor:
    """(token, 1) 1 for the mark that asks, −1 for all others"""
    asks = torch.full((size, 1), -1.0)
    if ask is not None:
        asks[within(np.array([ask.mark]), 0, size)] = 1
    return asks
