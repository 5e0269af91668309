"""Recurrent cells that are a finite automaton, exactly, for words of any length."""

import torch
from torch.nn import functional as F

from crevasse.models.constructed.automata import Automaton, cleared
from crevasse.models.layers import GatedUnit
from crevasse.models.recurrent import Bilinear, Recurrent
from crevasse.spec import require

#: What a gate is shut or opened by, and the least distance from 0 of what tanh is asked: both as good as infinite.
SHUT, SURE = 40.0, 16.0


def bilinear_size(automaton: Automaton) -> tuple[int, int]:
    """The width and the products that `set_bilinear` takes."""
    return automaton.states + (0 if _told_by_start(automaton) else automaton.kinds), len(automaton.terms.target)


@torch.no_grad()
def set_bilinear(model: Bilinear, automaton: Automaton) -> None:
    """Overwrite all weights of a freshly built crevasse cell, so that its state is the one-hot state of the automaton.

    Each product is one term of the step: (state ∈ P) · (symbol ∈ A). The norm takes off what it puts on: of a
    one-hot vector of width W the mean is 1/W and the variance (W − 1)/W². It also takes off any common factor and
    offset, so that errors of rounding do not add up. The first token is the first state; where its start does not
    tell what a symbol does, further coordinates do. Raises UserError where the model is too small.
    """
    states, terms = automaton.states, automaton.terms
    width, products = model.out.out_features, model.out.in_features
    least, fewest = bilinear_size(automaton)
    require(
        width >= least and products >= fewest,
        f"this automaton takes a bilinear model of width {least} with {fewest} products, not {width} with {products}",
    )
    p = cleared(model)
    kind, start, term = automaton.kind_of_tokens(model.embed.num_embeddings), automaton.starts, slice(fewest)
    place = start if _told_by_start(automaton) else states + torch.arange(automaton.kinds)
    token = torch.arange(len(kind))
    p["embed.weight"][token, start[kind]] = 1
    p["embed.weight"][token, place[kind]] = 1
    p["by_symbol.weight"][term, place] = terms.of_kind
    p["by_state.weight"][term, :states] = terms.of_state
    p["out.weight"][:states, term] = terms.to_state
    p["norm.weight"].fill_(((width - 1) / width**2 + model.norm.eps) ** 0.5)
    p["norm.bias"].fill_(1 / width)
    automaton.read_out(model, torch.eye(states, width))


def _told_by_start(automaton: Automaton) -> bool:
    return len(set(automaton.starts.tolist())) == automaton.kinds


def gru_width(automaton: Automaton) -> int:
    """The width that `set_gru` takes."""
    return len(automaton.terms.target) + automaton.states + 1


@torch.no_grad()
def set_gru(model: Recurrent, automaton: Automaton) -> None:
    """Overwrite all weights of a freshly built one-layer GRU, so that it is the automaton.

    A unit is +1 where its term of the step was the last one that held, else −1; so the state is where that term
    leads. One more unit for each state says that the word began with it, and the last one that the word has begun: it
    is 0 before the first token alone. Gates are shut, and every sum is at least SURE from 0, where tanh is ±1 in
    floating point: the state has no error at all. Raises UserError where the model is too small, or of another kind.
    """
    one = len(model.cells) == 1 and type(model.cells[0]) is GatedUnit
    require(one, "an automaton is written into a gru of one layer")
    states, terms = automaton.states, automaton.terms
    count, width, least = len(terms.target), model.embed.embedding_dim, gru_width(automaton)
    require(width >= least, f"this automaton takes a gru of width {least}, not {width}")
    p = cleared(model)
    kind = automaton.kind_of_tokens(model.embed.num_embeddings)
    p["embed.weight"][torch.arange(len(kind)), kind] = 1
    read, recur, bias = (p[f"cell0.{n}"] for n in ("read.weight", "recur.weight", "read.bias"))
    bias[:width] = SHUT  # reset: the new state sees the old one
    bias[width : 2 * width] = -SHUT  # update: nothing of the old state is kept
    read, recur, bias = read[2 * width :], recur[2 * width :], bias[2 * width :]
    units, begun = slice(count), least - 1
    starts = slice(count, begun)
    # (state, unit) the units whose terms lead there
    leads = torch.cat([terms.to_state, torch.eye(states)], 1)
    inside = terms.of_state @ leads
    # Of the units that lead into P one is +1 if the state is in P: their sum and their number make 2, else 0.
    read[units, : automaton.kinds] = 2 * SURE * terms.of_kind
    recur[units, :begun] = SURE * inside
    recur[units, begun] = SURE * inside.sum(1)
    bias[units] = -3 * SURE
    read[starts, : automaton.kinds] = 2 * SURE * F.one_hot(automaton.starts, states).T.float()
    recur[starts, begun] = -2 * SURE
    bias[starts] = -SURE
    bias[begun] = SURE
    automaton.read_out(model, F.pad(leads, (0, width - begun)) / 2, leads.sum(1) / 2)
