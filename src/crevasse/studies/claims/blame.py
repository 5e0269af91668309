"""C13: is it SGD or the architecture? Rule × architecture × format × data in one factorial design."""

import itertools
import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from crevasse.studies.base import Arm, Budget
from crevasse.studies.claims.base import Claim, Decision, Effect, Evidence, Ruling, share

#: Factor -> its levels: short name, words, text.
RULES = (
    ("sgd", "SGD with momentum", "sgd:momentum=0.9"),
    ("adamw", "AdamW", "adamw"),
    ("muon", "Muon", "muon"),
)
MODELS = (("transformer", "transformer", "transformer"), ("recurrent", "recurrent", "bilinear"))
FORMATS = (("direct", "answer only", "direct"), ("trace", "every step written", "trace"))
DATA = (
    ("2000", "2,000 products of six", "iterated-product", 2000),
    ("mixed", "2,000 products of one to six", "iterated-product:T=1-6", 2000),
    ("20000", "20,000 products of six", "iterated-product", 20_000),
)
FACTORS = ("update rule", "architecture", "format", "data")
RESAMPLES = 1000
#: Of held-out answers, what one combination at least has to get right for there to be anything to explain.
HALF = 0.5
#: A share of the variance that is worth naming.
PART = 0.1
#: Fewer seeds say nothing about noise.
SEEDS = 3


class Blame(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C13"
    title: ClassVar[str] = "SGD or the architecture?"
    quote: ClassVar[str] = "This is because of SGD in its current form. […] The issue is SGD in its current form."
    hypothesis: ClassVar[str] = (
        "Of what makes held-out success on a product vary, the update rule explains more than architecture, format "
        "or data."
    )
    experiment: ClassVar[str] = (
        "Every combination of update rule, architecture, format and data on products modulo 13; the variance of the "
        "held-out score split into main effects and interactions (a balanced analysis of variance)."
    )
    rule: ClassVar[str] = (
        "By the share of the variance that a factor takes part in, alone or in interactions, less what seeds alone "
        "would give it: supported if the update rule's is larger than each of the others (by the 95% bootstrap "
        "interval of the difference); if it is smaller than one of them, half right where it is a tenth or more, "
        "else refuted; else undecided, and if no combination answers half of the held-out problems or there are "
        "fewer than three seeds."
    )
    change: ClassVar[str] = (
        "Other levels: shares belong to the rules, architectures, formats and data that are in the design. Rates "
        "are not tuned for each combination. A race of narrow models, which finds products in the recurrent cell where "
        "these rules do not, is none of these levels: on the transformer it is too slow."
    )

    def _levels(self, budget: Budget) -> tuple[tuple[Any, ...], ...]:
        if budget == "full":
            return RULES, MODELS, FORMATS, DATA
        return RULES[:2], MODELS, FORMATS, DATA[:2]

    def arms(self, budget: Budget) -> list[Arm]:
        seeds, rows = {"smoke": (1, 2 * 60 * 64), "minutes": (3, 2 * 600 * 64), "full": (3, 512_000)}[budget]
        return [
            self.make(
                "-".join(x[0] for x in (rule, model, form, data)), ", ".join(x[1] for x in (rule, model, form, data)),
                data[2], form[2], model[2], rule[2], seeds=seeds, train=data[3],
                rows=rows, steps=rows // 128, batch=64,
            )
            for rule, model, form, data in itertools.product(*self._levels(budget))
        ]  # fmt: skip

    def decide(self, evidence: Evidence) -> Ruling:
        table, levels = _table(evidence)
        if table is None or table.mean(-1).max() < HALF or not np.ptp(table):
            return Ruling("undecided", "no combination answers half of the held-out problems", [], [])
        if table.shape[-1] < SEEDS:
            return Ruling("undecided", f"with fewer than {SEEDS} seeds noise cannot be told from effects", [], [])
        shares = without_noise(table)
        totals = total_shares(shares)
        drawn = np.array([list(total_shares(without_noise(t)).values()) for t in _resampled(table)])
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
        apart = np.quantile(drawn[:, :1] - drawn, [0.025, 0.975], axis=0)  # the update rule's share over each one's
        effects: list[Effect] = [
            {"name": f"{FACTORS[i]}: share of the variance, with interactions", "value": totals[i],
             "low": float(low[i]), "high": float(high[i]), "n": table.size}
            for i in totals
        ]  # fmt: skip
        effects += [
            {"name": f"{' × '.join(FACTORS[i] for i in which)} alone", "value": v, "low": None, "high": None,
             "n": table.size}
            for which, v in sorted(shares.items(), key=lambda item: -item[1]) if which
        ]  # fmt: skip
        others = [i for i in totals if i != 0]
        decision: Decision = "undecided"
        if all(apart[0, i] > 0 for i in others):
            decision = "supported"
        elif any(apart[1, i] < 0 for i in others):
            decision = "half right" if totals[0] >= PART else "refuted"
        order = sorted(totals, key=lambda i: -totals[i])
        key = "of these levels, share of the variance each takes part in: " + ", ".join(
            f"{FACTORS[i]} {share(totals[i])} [{share(float(low[i]))}–{share(float(high[i]))}]" for i in order
        )
        means = table.mean(-1).reshape(len(levels[0]), -1)
        return Ruling(
            decision, key, effects,
            [{
                "kind": "matrix",
                "caption": "Held-out answers that are right: architecture, format and data by update rule",
                "x": "", "y": "",
                "columns": list(levels[0]),
                "rows": [" · ".join(x) for x in itertools.product(*levels[1:])],
                "values": means.T.tolist(),
            }],
        )  # fmt: skip


def _table(evidence: Evidence) -> tuple[NDArray[np.float64] | None, list[list[str]]]:
    """Held-out scores (rule, model, format, data, seed) of the levels that were run, and the levels in words."""
    there = {tuple(r["arm"].partition("/")[2].split("-")) for r in evidence.rows}
    kept = [[x for x in factor if any(x[0] == t[i] for t in there)]
            for i, factor in enumerate((RULES, MODELS, FORMATS, DATA))]  # fmt: skip
    cells = []
    for which in itertools.product(*kept):
        name = "-".join(str(x[0]) for x in which)
        rows = [r for r in evidence.rows if r["arm"].partition("/")[2] == name]
        # One that diverged answered nothing.
        cells.append([r["random"] if r["status"] == "done" else 0.0 for r in rows])
    words = [[str(x[1]) for x in factor] for factor in kept]
    if not cells or not cells[0] or len({len(c) for c in cells}) != 1:
        return None, words
    return np.array(cells, dtype=np.float64).reshape(*map(len, kept), -1), words


def variance_shares(table: NDArray[np.float64]) -> dict[tuple[int, ...], float]:
    """The share of the variance of each effect of a balanced design (Fisher 1925), of all sets of factors.

    table (level, …, seed): a factor an axis; what remains within the cells has the key (). The shares add up to 1.
    """
    factors = table.ndim - 1
    cells = table.mean(-1)
    total = float(((table - table.mean()) ** 2).sum())
    parts: dict[tuple[int, ...], NDArray[np.float64]] = {(): np.asarray(cells.mean(keepdims=True))}
    shares: dict[tuple[int, ...], float] = {}
    for size in range(1, factors + 1):
        for which in itertools.combinations(range(factors), size):
            rest = tuple(i for i in range(factors) if i not in which)
            mean = cells.mean(rest, keepdims=True) if rest else cells
            below = (parts[p] for k in range(size) for p in itertools.combinations(which, k))
            parts[which] = mean - sum(below)
            repeats = table.size / parts[which].size
            shares[which] = float((parts[which] ** 2).sum() * repeats / total)
    shares[()] = float(((table - cells[..., None]) ** 2).sum() / total)
    return shares


def without_noise(table: NDArray[np.float64]) -> dict[tuple[int, ...], float]:
    """`variance_shares` less what seeds alone would give to each effect (ω², Hays 1963), none below 0."""
    levels, seeds = table.shape[:-1], table.shape[-1]
    shares = variance_shares(table)
    noise = shares[()] / (math.prod(levels) * (seeds - 1))
    return {
        which: max(v - noise * math.prod(levels[i] - 1 for i in which), 0.0) if which else v
        for which, v in shares.items()
    }


def total_shares(shares: dict[tuple[int, ...], float]) -> dict[int, float]:
    """Of each factor, the share of all effects that it takes part in (Sobol's total index; they overlap)."""
    factors = max(i for which in shares for i in which) + 1
    return {i: sum(v for which, v in shares.items() if i in which) for i in range(factors)}


def _resampled(table: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """The seeds of each cell drawn anew."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        drawn = np.take_along_axis(table, generator.integers(0, table.shape[-1], table.shape), axis=-1)
        if np.ptp(drawn):
            found.append(drawn)
    return found
