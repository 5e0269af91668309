"""A transformer that counts modulo a number in one layer, at every length: parity, and steps on a cycle."""

import math

import numpy as np
import torch

from crevasse.models.constructed.automata import SHARP, cleared
from crevasse.models.constructed.doubling import Ask, Ints, asked, learned, twice, undone, within, written
from crevasse.models.transformer import Transformer
from crevasse.spec import require

#: Value of the token and what its norm lacks; 1/T and what its norm lacks; mark; mean; remainder/T and 1/T, at the end.
COORDINATES = VALUE, LACK, SHARE, LACKS, ASKS, MEAN, REMAINDER, UNIT = range(8)


def counting_width(modulus: int, values: Ints, context: int) -> int:
    """The least even width that `set_counting` takes: room for its coordinates twice, and a quarter of its units.

    It grows with the context: there are two units for each multiple of the modulus that a count can reach, and one
    more.
    """
    return max(2 * len(COORDINATES), 2 * math.ceil((len(_bends(modulus, values, context)[0]) + 1) / 8))


@torch.no_grad()
def set_counting(
    model: Transformer, modulus: int, tokens: Ints, values: Ints, answers: Ints, ask: Ask | None = None
) -> None:
    """Overwrite all weights of a freshly built transformer, so that it adds up its tokens modulo a number.

    tokens (symbol,): their numbers; values (symbol,): what each adds, while all other tokens add 0; answers
    (modulus,): the token that each remainder is read out as. All layers but the first are left out (zeros).

    Attention is uniform, so it gives the mean count c/T (as in Chiang, Cholak 2022, whose parity then looks for the
    position that equals the count; its width does not grow, but it has to see both ways). The MLP bends at every
    multiple of the modulus (the modular counter of Liu et al. 2023): of c/T − t · 1/T, with 1/T from the position, it
    makes (c mod modulus)/T. The head compares it with each r/T, by 2r · (c mod modulus)/T + (1 − r²)/T. All this takes
    on a common factor, so layer norms change nothing. Raises UserError where the model is too small, or of another
    kind.
    """
    require(
        tokens.shape == values.shape != (0,) and answers.shape == (modulus,),
        f"a count modulo {modulus} takes {modulus} answers, and each token a value",
    )
    context, width = learned(model), model.embed.embedding_dim
    least, half = counting_width(modulus, values, context), width // 2
    require(
        width >= least and width % 2 == 0,
        f"a count modulo {modulus} in a context of {context} takes a transformer of an even width of at least {least}, "
        f"not {width}",
    )
    p = cleared(model)
    size = len(p["embed.weight"])
    token = torch.zeros(size, half, dtype=torch.float64)
    token[within(tokens, 0, size), VALUE] = torch.from_numpy(_signed(modulus, values)).double()
    square = float((token[:, VALUE] ** 2).max())
    token[:, LACK] = (square - token[:, VALUE] ** 2).sqrt()
    token[:, [ASKS]] = asked(size, ask).double()
    p["embed.weight"].copy_(twice(token))
    place = torch.zeros(context, half, dtype=torch.float64)
    place[:, SHARE] = 1 / torch.arange(1, context + 1, dtype=torch.float64)
    place[:, LACKS] = (1 - place[:, SHARE] ** 2).sqrt()
    p["place.weight"].copy_(twice(place))
    for norm in ("blocks.0.norm1", "blocks.0.norm2", "norm"):
        p[f"{norm}.weight"].fill_(undone(model, square + 2))

    block = {name.removeprefix("blocks.0."): w for name, w in p.items() if name.startswith("blocks.0.")}
    block["qkv.weight"][2 * width, VALUE] = 1
    every = torch.eye(half)
    block["out.weight"][:, 0] = twice(every[MEAN])
    bends, slopes = (torch.from_numpy(each).float() for each in _bends(modulus, values, context))
    units = slice(len(bends))
    block["up.weight"][units, MEAN] = 1
    block["up.weight"][units, SHARE] = -bends
    block["down.weight"][:, units] = twice(slopes[:, None] * every[REMAINDER]).T
    block["up.weight"][len(bends), SHARE] = 1
    block["down.weight"][:, len(bends)] = twice(every[UNIT])

    sharp, remainder = 2 * SHARP * context, torch.arange(modulus)
    rows = written(model, answers)
    p["head.weight"][rows, REMAINDER] = 2.0 * sharp * remainder
    p["head.weight"][rows, UNIT] = sharp * (1 - remainder**2)
    if ask is not None:
        p["head.weight"][written(model, np.array([ask.end])), ASKS] = -2 * sharp * modulus**2


def _signed(modulus: int, values: Ints) -> Ints:
    """The remainders of least absolute value."""
    return (values + modulus // 2) % modulus - modulus // 2


def _bends(modulus: int, values: Ints, context: int) -> tuple[Ints, Ints]:
    """Where the remainder of a count bends between whole numbers, and by how much its slope grows there.

    It begins at a multiple of the modulus that no count lies below, rises by 1 to each number before a multiple, and
    falls to 0 up to that.
    """
    signed = _signed(modulus, values)
    low, high = (context * int(v) // modulus for v in (min(0, signed.min()), max(0, signed.max())))
    multiples = np.arange(low, high + 1) * modulus
    bends = np.stack([multiples, multiples + modulus - 1], 1).ravel()
    slopes = np.tile([modulus, -modulus], len(multiples))
    slopes[0] = 1
    return bends, slopes
