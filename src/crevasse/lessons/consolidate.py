"""Imagine and consolidate: a network is trained on what a program says, and asked what it was not trained on."""

import itertools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crevasse.config import TrialConfig
from crevasse.errors import UserError
from crevasse.formats import FORMATS
from crevasse.lessons.induce import Arguments
from crevasse.models import MODELS
from crevasse.programs.language import Program
from crevasse.rules import RULES
from crevasse.spec import Sizes, parse_sizes, require
from crevasse.tasks.program import Program as Sequence
from crevasse.tasks.program import ProgramMod, begins, follow, spelt
from crevasse.trial import Progress, run_trial

#: Steps of the longest trace, digits of its longest number, and the fewest steps of a line that can be held out of.
LONGEST, WIDEST, SHORTEST = 16, 20, 6
#: Of the n between the first and the last, the share that is held out, and how far it ends before the last: the longest
#: counts of steps occur in two or three traces each, which is too few to count by (tried: n = 15 of 16 fails).
SHARE, MARGIN = 0.3, 3
#: Modulus of imagined states.
MODULUS = 13
#: Training steps of the one and the other, and documents in each.
STEPS, STEPS_MOD, BATCH = 600, 800, 32
MODEL, RULE, RULE_MOD = "transformer:position=rotary", "adamw:decay=0.3", "adamw"


@dataclass(frozen=True)
class Consolidation:
    """What came of it. Shares of exact answers; None where there was nothing to ask."""

    trials: tuple[str, ...]  # ids, in ROOT/trials
    held_out: tuple[int, ...]  # the n that were asked; none for a function of two numbers, whose pairs are drawn
    trained: float  # on what it was trained on
    within: float  # held-out n (or pairs), no longer than the longest trace
    beyond: float | None  # n beyond the longest trace
    imagined: float | None  # held-out states modulo 13 that the sequence need not have

    def __str__(self) -> str:
        which = f"held-out n ({', '.join(map(str, self.held_out))})" if self.held_out else "held-out pairs"
        parts = [f"{self.within:.1%} of {which} exact"]
        parts += [f"{self.beyond:.1%} beyond the longest trace"] if self.beyond is not None else []
        parts += [f"{self.imagined:.1%} from held-out states mod {MODULUS}"] if self.imagined is not None else []
        return "; ".join(parts)


def consolidate(
    program: Program,
    pairs: Collection[Arguments],
    root: Path,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> Consolidation:
    """Train a network on what a program says, in ROOT/trials, and test it on what it was not trained on.

    pairs: inputs of the user's examples, which are never held out as n (of two numbers, some may be among the held-out
    pairs). Tried again, it is read, not trained. Two trials: one on the traces of the sequence, one, where the program
    is a recursion without / and mod, on steps from imagined states. Raises UserError for a program that is undefined,
    or whose numbers are too long, too soon.
    """
    results = [run_trial(config, root, progress=progress) for config in configs(program, pairs, seed)]
    for record in results:
        require(record["status"] == "done", f"trial {record['id']} diverged")
    first = results[0]["result"]["splits"]
    held_out = parse_sizes(results[0]["config"]["task"]["gap"])
    return Consolidation(
        tuple(r["id"] for r in results),
        held_out,
        results[0]["result"]["train"],
        first["interpolation"] if held_out else first["random"],
        first.get("extrapolation"),
        results[1]["result"]["splits"]["random"] if len(results) > 1 else None,
    )


def configs(program: Program, pairs: Collection[Arguments], seed: int = 0) -> list[TrialConfig]:
    """The trials of `consolidate`. Raises UserError."""
    common: dict[str, Any] = {"batch": BATCH, "probe_every": 50, "seed": seed}
    form, model = FORMATS.parse("trace"), MODELS.parse(MODEL)
    made = [TrialConfig(imagined(program, pairs, seed), form, model, RULES.parse(RULE), steps=STEPS, **common)]
    try:
        states = ProgramMod(spelt(program), m=MODULUS)
    except UserError:
        return made
    return [*made, TrialConfig(states, form, model, RULES.parse(RULE_MOD), steps=STEPS_MOD, **common)]


def imagined(program: Program, pairs: Collection[Arguments], seed: int = 0) -> Sequence:
    """The task of a program, with n held out at random that are none of the user's. Raises UserError."""
    if len(program.arguments) == 2:
        return Sequence(spelt(program), Sizes(tuple(range(LONGEST + 1))), Sizes(()), Sizes(()))
    first = begins(program)
    line = list(itertools.takewhile(lambda n: _can_be_written(program, n), range(first, first + LONGEST + 3)))
    last = min(line[-1], first + LONGEST) if line else first
    require(
        last - first >= SHORTEST,
        f"there is too little to imagine: from {first} on, f(n) is defined, with at most {WIDEST} digits, for "
        f"{len(line)} numbers, and {SHORTEST + 1} are needed",
    )
    between = [n for n in range(first + 1, last - MARGIN + 1) if (n,) not in pairs]
    require(bool(between), "every n that could be held out is one of the examples")
    drawn = np.random.default_rng(seed).permutation(between)[: max(1, round(SHARE * len(between)))]
    gap = Sizes(tuple(sorted(int(n) for n in drawn)))
    trained = Sizes(tuple(n for n in range(first, last + 1) if n not in gap))
    return Sequence(spelt(program), trained, gap, Sizes(tuple(n for n in line if n > last)))


def _can_be_written(program: Program, n: int) -> bool:
    found = follow(program, n, begins(program))
    return found is not None and len(found[-1].lstrip("-")) <= WIDEST
