"""Who finds the rule in three or five examples? Our induction, and peers that see the same pairs.

All classics of `crevasse.lessons.classics`, their first three and first five examples of the fixed order. A learner has
identified a function if it is right, exactly, at all inputs that are judged there.

- induction: `crevasse teach`, 8 seconds a search.
- gplearn 0.4 (`pip install gplearn`, in the extra `bench`): symbolic regression by genetic programming, with + − × ÷
  and constants between -5 and 5, 500 programs, 10 generations. It knows no recursion. Left out where not installed.
- polynomial: the one through the pairs with as many terms, in exact fractions (Lagrange; of two arguments 1, a, b, …).
- direct: a transformer that is trained on the pairs (100 steps) and answers at once, digit by digit.

    python benchmarks/teach_peers.py [--only NAME ...] [--without LEARNER ...]

Prints a table; run for all classics, it writes teach_peers.json beside this file.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from crevasse.api import make_config
from crevasse.lessons.classics import CLASSICS, JUDGED, ORDER, Classic, is_found
from crevasse.lessons.induce import Arguments, Pairs, induce
from crevasse.studies.claims.one_to_three import interpolated
from crevasse.trial import run_trial

SECONDS, COUNTS = 8.0, (3, 5)
POPULATION, GENERATIONS = 500, 10
STEPS = 100


def given(classic: Classic, count: int) -> Pairs:
    """The first examples of the fixed order to which there is an answer."""
    pairs = {x: classic.value(*x) for x in ORDER[classic.arguments][:count]}
    return {x: v for x, v in pairs.items() if v is not None}


def judged(classic: Classic) -> Pairs:
    """Every input at which a learner must be right, with its value."""
    values = {x: classic.value(*x) for x in JUDGED[classic.arguments]}
    return {x: v for x, v in values.items() if v is not None}


def by_induction(classic: Classic, pairs: Pairs) -> bool:
    return is_found(classic, induce(pairs, SECONDS))


def by_gplearn(classic: Classic, pairs: Pairs) -> bool:
    from gplearn.genetic import SymbolicRegressor

    found = SymbolicRegressor(
        population_size=POPULATION, generations=GENERATIONS, function_set=("add", "sub", "mul", "div"),
        const_range=(-5.0, 5.0), stopping_criteria=1e-9, parsimony_coefficient=1e-4, random_state=0,
    )  # fmt: skip
    found.fit(np.array(list(pairs), dtype=float), np.array([float(v) for v in pairs.values()]))
    asked = judged(classic)
    said = found.predict(np.array(list(asked), dtype=float))
    # It computes in floats: what it says is rounded.
    return bool(np.isfinite(said).all()) and [round(v) for v in said.tolist()] == list(asked.values())


def by_polynomial(classic: Classic, pairs: Pairs) -> bool:
    return all(interpolated(pairs, x) == v for x, v in judged(classic).items())


def by_training(classic: Classic, pairs: Pairs) -> bool:
    """As a file of pairs, through the trial's own loop."""
    asked = {x: v for x, v in judged(classic).items() if x not in pairs}
    beyond: Arguments = (13,) if classic.arguments == 1 else (11, 4)  # for the meter: it is not judged
    rows = [(x, v, "train") for x, v in pairs.items()] + [(x, v, "test") for x, v in asked.items()]
    rows.append((beyond, classic.value(*beyond) or 0, "validation"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pairs.csv"
        with file.open("w", newline="") as f:
            writer = csv.writer(f)
            writer.writerow(["problem", "answer", "split"])
            writer.writerows((",".join(map(str, x)), v, split) for x, v, split in rows)
        config = make_config(f"pairs:{file}", "direct", "transformer:width=32", steps=STEPS, probe_every=STEPS)
        result = run_trial(config, Path(folder))["result"]
    return result["train"] == 1.0 and result["splits"]["random"] == 1.0


LEARNERS: dict[str, Callable[[Classic, Pairs], bool]] = {
    "induction": by_induction,
    "gplearn": by_gplearn,
    "polynomial": by_polynomial,
    "direct": by_training,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=[c.name for c in CLASSICS], help="classics, by name")
    parser.add_argument("--without", nargs="+", default=[], choices=LEARNERS, help="learners to leave out")
    chosen = parser.parse_args()
    learners = {k: v for k, v in LEARNERS.items() if k not in chosen.without}
    try:
        import gplearn  # noqa: F401
    except ImportError:
        print("gplearn is not installed (pip install gplearn): left out")
        learners.pop("gplearn", None)
    classics = [c for c in CLASSICS if c.name in chosen.only]
    rows, seconds = [], dict.fromkeys(learners, 0.0)
    print(f"{'':<26}" + "".join(f"{f'{name}, {k}':>15}" for name in learners for k in COUNTS))
    for classic in classics:
        found: dict[str, dict[int, bool]] = {}
        for name, learner in learners.items():
            began = time.perf_counter()
            found[name] = {k: learner(classic, given(classic, k)) for k in COUNTS}
            seconds[name] += time.perf_counter() - began
        marks = "".join(f"{'yes' if found[name][k] else '.':>15}" for name in learners for k in COUNTS)
        print(f"{classic.name:<26}{marks}", flush=True)
        rows.append({"classic": classic.name, "found": found})
    total = {name: {k: sum(r["found"][name][k] for r in rows) for k in COUNTS} for name in learners}
    print(f"{f'of {len(rows)}':<26}" + "".join(f"{total[name][k]:>15}" for name in learners for k in COUNTS))
    print("seconds: " + ", ".join(f"{name} {s:.0f}" for name, s in seconds.items()))
    result = {"of": len(rows), "found": total, "seconds": {k: round(v, 1) for k, v in seconds.items()}, "rows": rows}
    if len(rows) < len(CLASSICS):
        return
    path = Path(__file__).with_name("teach_peers.json")
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
