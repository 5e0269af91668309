"""Addition modulo m in a network with one hidden layer, by cosines."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from crevasse.models.constructed.automata import SHARP, cleared
from crevasse.models.layers import Head
from crevasse.models.mlp import Mlp
from crevasse.spec import require

#: Hidden units that each frequency gets, where there is room for more than one frequency.
PHASES = 15


@torch.no_grad()
def set_addition(model: Mlp, tokens: NDArray[np.int64], frequencies: Sequence[int] = ()) -> None:
    """Overwrite all weights of a freshly built network that reads two tokens, so that it adds modulo m.

    tokens (m,): those of 0, 1, …, m − 1; for another cyclic group, those of a generator's powers. A frequency k takes
    two coordinates of the embeddings, cos wa and sin wa with w = 2πk/m, and M hidden units relu(cos(wa + φ) +
    cos(wb + φ)), M odd and φ evenly spaced. That sum is 2 cos(w(a − b)/2) cos(w(a + b)/2 + φ), so the second harmonics
    of all φ together are |cos(w(a − b)/2)| cos(w(a + b − c)): for odd m largest at c = a + b, where all frequencies
    agree (Gromov 2023, "Grokking modular arithmetic", with squares; Nanda et al. 2023). A relu has no odd harmonics but
    the first, so that with M odd the next ones that look like the second are those from 2M − 2 on, which only turn the
    answer by an angle of the order 1/M². So one frequency is enough, if M is half the root of m, and 5 or more; further
    frequencies set answers further apart. For even m none does, as a − b = m/2 would leave nothing.

    frequencies: out of 1 … m // 2 and, for one alone, prime to m; by default as many as there is room for, with 15
    units each. The answers to all pairs are computed, and the head is scaled so that the right ones lead by SHARP.
    Raises UserError where one is wrong, for even m, and for a model of another kind.
    """
    m = len(tokens)
    fits = model.length == 2 and len(model.hidden) == 1
    require(fits, "addition is written into an mlp of one layer that reads two tokens")
    require(m % 2 == 1 and m > 2, f"addition by cosines is for an odd modulus of at least 3, not {m}")
    p, head = cleared(model), model.head
    assert isinstance(head, Head)
    (hidden, both) = p["hidden.0.weight"].shape
    width = both // 2
    room = max(1, min(m // 2, width // 2, hidden // PHASES))
    chosen = np.array(frequencies) if len(frequencies) else _spread(m)[:room]
    phases = (hidden // len(chosen) + 1) // 2 * 2 - 1
    require(
        2 * len(chosen) <= width and phases > 0,
        f"{len(chosen)} frequencies take an mlp of width {2 * len(chosen)}, not {width}",
    )
    wanted = torch.from_numpy(tokens) - head.silent
    number, phase = np.arange(m)[:, None], 2 * np.pi / phases * np.arange(phases)
    for i, k in enumerate(chosen):
        angle = 2 * np.pi / m * k * number
        pair, units = slice(2 * i, 2 * i + 2), slice(i * phases, (i + 1) * phases)
        for name in dict.fromkeys(n for n in p if n.startswith("embed.")):
            p[name][torch.from_numpy(tokens), pair] = _float(np.hstack([np.cos(angle), np.sin(angle)]))
        for side in p["hidden.0.weight"].split(width, 1):
            side[units, pair] = _float(np.stack([np.cos(phase), -np.sin(phase)], 1))  # cos(wa + φ)
        head.weight[wanted, units] = _float(np.cos(angle + 2 * phase))
    lead = min(_lead(model, tokens, a) for a in range(m))
    require(
        lead > 0,
        f"addition modulo {m} takes 5 hidden units a frequency or more, about √{m}/2, and frequencies prime to {m}; "
        f"here {len(chosen)} frequencies share {hidden}",
    )
    head.weight.mul_(SHARP / lead)


def _lead(model: Mlp, tokens: NDArray[np.int64], a: int) -> float:
    """By how much the right answers to a + b lead all others, at least, over every b; below 0 where one is wrong."""
    head, m = model.head, len(tokens)
    assert isinstance(head, Head)
    numbers = torch.from_numpy(tokens)
    prompts = torch.stack([numbers[a].expand(m), numbers], 1)
    logits = head(model.read(prompts))
    right = numbers.roll(-a)[:, None]
    best = logits.gather(1, right)[:, 0]
    return float((best - logits.scatter(1, right, -torch.inf).amax(1)).min())


def _spread(m: int) -> NDArray[np.int64]:
    """1 … m // 2 in a fixed random order: low frequencies alone would hardly tell neighbours apart."""
    return 1 + np.random.default_rng(0).permutation(m // 2)


def _float(values: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(values).float()
