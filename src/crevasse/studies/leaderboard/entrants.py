"""Who takes part in the leaderboard, and the settings that each may try: the same number for everyone.

A rule is tried at the strengths of its source, which are its defaults. What is tuned is what it stands on: three
settings of its base, or of its own rate where it is one. `rate` is the bench's usual rate of adamw.
"""

import dataclasses
from collections.abc import Callable

from crevasse.rules import RULES, Rule
from crevasse.rules.from_file import FromFile

TRIES = 3

#: Those that stand for the others where a bench is dear. On tables: what was published as finding them sooner.
ON_TABLES = ("adamw", "lion", "row-clip", "perp", "grokfast", "delayed-compression", "starve", "invariant")
ON_MORE_TABLES = ("adamw", "row-clip", "delayed-compression", "starve", "invariant")
ON_LABELS = ("adamw", "muon", "perp", "grokfast", "sam", "starve")
ON_CURVE = ("adamw", "muon", "grokfast", "race", "invariant")


def everyone() -> tuple[str, ...]:
    """All rules of the table, in its order; a user's file joins by name."""
    return tuple(name for name in RULES if name != "file")


def settings(name: str, rate: float) -> tuple[str, ...]:
    """What a rule tries on a bench, as texts for `RULES.parse`. name: of the table, or ``file:PATH``."""
    if name in _OWN:
        found = _OWN[name](rate)
    else:
        found = _derived(name, rate)
    assert len(found) == TRIES
    return found


def _bases(rate: float) -> tuple[tuple[float, float], ...]:
    """Rate and decay of adamw: little decay, the usual one, and so much that it starves (rate · decay up to .1)."""
    return (rate, 0.1), (rate, 1.0), (3 * rate, 3.0)


def _adamw(prefix: str, rate: float) -> tuple[str, ...]:
    return tuple(f"{prefix}lr={lr:g},{prefix}decay={decay:g}" for lr, decay in _bases(rate))


def _derived(name: str, rate: float) -> tuple[str, ...]:
    """Settings of a rule that the list below does not know."""
    rule: Rule = RULES.parse(name)
    inside = rule.rule if isinstance(rule, FromFile) else rule
    fields = {f.name for f in dataclasses.fields(inside)}  # type: ignore[arg-type]
    if "base" in fields:
        options = _adamw("base.", rate)
    elif "lr" in fields:
        options = tuple(f"lr={factor * inside.lr:g}" for factor in (1 / 3, 1, 3))  # type: ignore[attr-defined]
    else:
        options = ("",) * TRIES
    if isinstance(rule, FromFile):
        return tuple(f"{name},options={o.replace(',', ';')}" if o else name for o in options)
    return tuple(f"{name}:{o}" if o else name for o in options)


def _rates(text: str, *factors: float) -> Callable[[float], tuple[str, ...]]:
    return lambda rate: tuple(text.format(factor * rate) for factor in factors)


_OWN: dict[str, Callable[[float], tuple[str, ...]]] = {
    "sgd": _rates("sgd:lr={:g}", 30, 100, 300),
    "momentum": _rates("momentum:lr={:g}", 10, 30, 100),
    "nesterov": _rates("nesterov:lr={:g}", 10, 30, 100),
    "sgld": _rates("sgld:base.lr={:g}", 30, 100, 300),
    "mezo": _rates("mezo:base.lr={:g}", 0.3, 1, 3),
    "adamw": lambda rate: tuple(f"adamw:{o}" for o in _adamw("", rate)),
    "lion": lambda rate: tuple(f"lion:lr={rate * f:g},decay={d:g}" for f, d in ((0.1, 1), (0.3, 1), (0.3, 3))),
    # As published: on lion, without decay.
    "row-clip": _rates("row-clip:base=lion,base.decay=0,base.lr={:g}", 0.1, 0.3, 1),
    "muon": lambda rate: tuple(
        f"muon:lr={lr:g},decay={d:g},rest_lr={rate:g}" for lr, d in ((0.01, 0.1), (0.02, 1), (0.05, 0.5))
    ),
    "starve": lambda rate: (
        f"starve:by=decay,strength=0.03,base.lr={3 * rate:g}",
        f"starve:by=decay,strength=0.1,base.lr={10 * rate:g}",
        f"starve:by=precision,strength=0.8,base.lr={rate:g}",
    ),
    "race": lambda rate: ("race:thin=8", "race:thin=16", "race:thin=32"),
}
