"""The usual loop, written as most people write it: the peer that our figures are ratios to.

`PlainDecoder` is a pre-LN decoder in the common minimal form (one projection for queries, keys and values, torch's own
attention, logits at every position); it takes its weights from a model of ours, so that both compute one function.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from crevasse.documents import Rows


class PlainBlock(nn.Module):
    """x + attention(LN x), then x + MLP(LN x)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(width, dim=2)
        q, k, v = (y.view(rows, length, self.heads, width // self.heads).transpose(1, 2) for y in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).contiguous().view(rows, length, width))
        return x + self.down(F.relu(self.up(self.norm2(x))))


class PlainDecoder(nn.Module):
    """Takes the weights of one of our transformers with learned positions."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        width = model.embed.embedding_dim
        self.embed = nn.Embedding(model.embed.num_embeddings, width)
        self.place = nn.Embedding(model.place.num_embeddings, width)
        self.blocks = nn.ModuleList(PlainBlock(width, block.heads) for block in model.blocks)
        self.norm = nn.LayerNorm(width)
        self.head, self.silent = nn.Linear(width, model.head.out_features), model.head.silent
        self.load_state_dict(model.state_dict())

    def forward(self, tokens: Tensor) -> Tensor:
        """(row, position) -> logits (row, position, token)"""
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return F.pad(self.head(self.norm(x)), (self.silent, 0), value=-torch.inf)


class PlainCell(nn.Module):
    """The bilinear cell, a step a token, logits at every position."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        width, products = model.embed.embedding_dim, model.by_symbol.out_features
        self.embed = nn.Embedding(model.embed.num_embeddings, width)
        self.by_symbol, self.by_state = (nn.Linear(width, products, bias=False) for _ in range(2))
        self.out, self.norm = nn.Linear(products, width), nn.LayerNorm(width)
        self.head, self.silent = nn.Linear(width, model.head.out_features), model.head.silent
        self.load_state_dict(model.state_dict())

    def forward(self, tokens: Tensor) -> Tensor:
        """(row, position) -> logits (row, position, token)"""
        x = self.embed(tokens)
        state, states = x[:, 0], [x[:, 0]]
        for t in range(1, x.shape[1]):
            state = self.norm(self.out(self.by_symbol(x[:, t]) * self.by_state(state)))
            states.append(state)
        return F.pad(self.head(torch.stack(states, 1)), (self.silent, 0), value=-torch.inf)


def plain_loss(model: nn.Module, rows: Rows, picked: Tensor) -> Tensor:
    """Cross entropy of the picked rows with a mask over all positions."""
    tokens = rows.tokens[picked].long()
    targets = torch.where(rows.loss[picked], tokens, -100)[:, 1:]
    # A token that is never written has no finite loss; where nothing is wanted, none is taken.
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), targets.flatten(), ignore_index=-100)


def plain_loop(model: nn.Module, rows: Rows, steps: int, batch: int, lr: float = 3e-3) -> None:
    """Train it for so many steps with torch's AdamW as it comes."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        loss = plain_loss(model, rows, torch.randint(len(rows.tokens), (batch,), generator=generator))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()
