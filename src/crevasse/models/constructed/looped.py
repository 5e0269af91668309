"""A looped transformer that is a finite automaton: each loop takes every position one symbol further."""

import math
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from crevasse.models.constructed.automata import Automaton, cleared
from crevasse.models.transformer import Looped
from crevasse.spec import require

#: Score by which the attended position leads its neighbours: what leaks is e to the minus this.
LEAD = 30.0


def looped_width(automaton: Automaton) -> int:
    """The least even width that `set_looped` takes: room for its coordinates twice, and a quarter of its units."""
    return max(2 * _offsets(automaton)[-1], 2 * math.ceil(_units(automaton) / 8))


@torch.no_grad()
def set_looped(model: Looped, automaton: Automaton) -> None:
    """Overwrite all weights of a freshly built looped transformer with learned positions, so that it is the automaton.

    After k loops the position i ≤ k + 1 holds the state after its own token, and more loops change nothing: a word
    of T tokens takes T − 1 loops. In each, every position reads the state of the one before it (attention on an angle,
    i turned back by one) and takes it one step further (each term of the step is a ramp of the MLP that goes from 0 to
    1, so that errors end there). The block erases all that it was given, but for the answer; the input that is added
    before each loop brings token, position and first state back. Norms do nothing but scale: coordinates are there
    twice, the second time with the other sign (mean 0), and one of them is large and constant (variance nearly so).
    Raises UserError where the model is too small, or of another kind.
    """
    width, heads = model.embed.embedding_dim, model.block.heads
    require(model.place is not None, "an automaton is written into a looped model with position=learned")
    assert model.place is not None
    least, part = looped_width(automaton), width // heads
    require(
        width >= least and width % 2 == 0 and part >= 2,
        f"this automaton takes a looped model of an even width of at least {least} with heads of 2 or more each, "
        f"not width {width} with {heads} heads",
    )
    p, half = cleared(model), width // 2
    states, terms, starts = automaton.states, automaton.terms, F.one_hot(automaton.starts, automaton.states).float()
    offsets = _offsets(automaton)
    state, read, answer, kind, angle, at_start, constant = (slice(a, b) for a, b in pairwise(offsets))
    every = torch.eye(half)

    def twice(content: Tensor) -> Tensor:
        """(…, half) -> (…, width)"""
        return torch.cat([content, -content], -1)

    # Embeddings.
    context = model.place.num_embeddings
    large = 2.0 * max(context, 32)  # the norms' scales then differ by less than neighbouring positions do
    size = len(p["embed.weight"])
    token = torch.zeros(size, half)
    of_token = automaton.kind_of_tokens(size)
    token[:, kind] = F.one_hot(of_token, automaton.kinds).float()
    token[:, state] = starts[of_token]
    token[:, constant] = large
    p["embed.weight"].copy_(twice(token))
    turn = 2 * math.pi / context
    place = torch.zeros(context, half, dtype=torch.float64)
    turned = torch.arange(context, dtype=torch.float64) * turn
    place[:, angle] = torch.stack([turned.cos(), turned.sin()], 1)
    place[0, at_start] = 1
    p["place.weight"].copy_(twice(place))
    # The norms of the block leave their input as it is: Σ content² is nearly large² + 3.
    for norm in ("block.norm1", "block.norm2"):
        p[f"{norm}.weight"].fill_(math.sqrt((large**2 + 3) / half))

    # Attention: every head looks at the position before, and each carries its share of the state.
    lead = LEAD / (1 - math.cos(turn)) * math.sqrt(part)
    back = torch.tensor([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    qkv = p["block.qkv.weight"]
    for head in range(heads):
        rows = slice(head * part, head * part + 2)
        qkv[rows, angle] = lead * back
        qkv[width:][rows, angle] = torch.eye(2)
    qkv[2 * width :][:states, state] = torch.eye(states)
    p["block.out.weight"][:, :states] = twice(every[read]).T

    # The MLP, a group of units at a time: what they read (unit, half), their bias, what they write (unit, half).
    units: list[tuple[Tensor, float, Tensor]] = []
    holds = terms.of_state @ every[read] + terms.of_kind @ every[kind] - 2 * every[at_start]
    moved = terms.to_state.T @ (every[state] + every[answer])
    units += [(2 * holds, -2.5, moved), (2 * holds, -3.5, -moved)]  # from 0 at 1.25 to 1 at 1.75
    begins = starts.T @ every[kind]
    # The input brings each token's own first state back: right where the word begins, to be made good elsewhere.
    units += [(begins - every[at_start], 0.0, -every[state]), (begins + every[at_start], -1.0, every[answer])]
    erased = every[: constant.start]
    units += [(erased, 0.0, -erased), (-erased, 0.0, erased)]
    start = 0
    for reads, bias, writes in units:
        rows = slice(start, start := start + len(reads))
        p["block.up.weight"][rows, :half] = reads
        p["block.up.bias"][rows] = bias
        p["block.down.weight"][:, rows] = twice(writes).T
    p["block.down.bias"].copy_(twice(-large * every[constant]).flatten())
    # What remains is the answer, and the state but for the first state of the last token.
    p["norm.weight"].fill_(1)
    automaton.read_out(model, F.pad(every[answer], (0, width - half)))


def _offsets(automaton: Automaton) -> list[int]:
    """Where each kind of coordinate starts: state, state read, answer, kind of token, angle, first position, constant.

    The last entry is their number.
    """
    states = automaton.states
    return list(accumulate([0, states, states, states, automaton.kinds, 2, 1, 1]))


def _units(automaton: Automaton) -> int:
    """Units of the MLP: two a term, two a state, and two for each coordinate that is erased."""
    return 2 * (len(automaton.terms.target) + automaton.states + _offsets(automaton)[-2])
