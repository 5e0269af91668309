"""A survey of two or three solutions: how sharp it is around each, what lies between them, and what that says."""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crevasse import store
from crevasse.landscape import Ground, Place, read_place, same_ground
from crevasse.models.transformer import Looped, Transformer
from crevasse.probes import landscape, sharpness
from crevasse.solutions import constructed
from crevasse.spec import require

#: In place of a trial's name: weights set by formula.
FORMULA = "constructed"
#: The points of a survey, in its order.
LETTERS = "ABC"
#: Random changes of the weights, as shares of their length (those of the claim on sharpness), and how many of each.
RADII = (0.003, 0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5)
DRAWS = 8
#: A change is tolerated if this share of the right answers stays right.
KEPT = 0.9
#: Radius of the adaptive sharpness, steps that bend a path, and points a side of the plane.
ADAPTIVE, BEND, GRID = 0.5, 200, 21
#: Everything random in a survey is drawn from it.
SEED = 0


def read_places(names: Sequence[str], root: Path) -> list[Place]:
    """Two or three trials, each named by the beginning of its id or by its folder; one may be `constructed`.

    That is the formula for task and model of the first trial. Raises UserError for another number of points, the same
    point twice, a trial that is missing or did not end well, a task without a formula, and different architectures.
    """
    asked = f"a landscape lies between two or three points (trials, and the word {FORMULA})"
    require(2 <= len(names) <= 3, f"{asked}, not {len(names)}")
    trials = {name: read_place(store.find_trial(name, root)) for name in names if name != FORMULA}
    require(bool(trials), f"{asked}, one of them a trial")
    first = next(iter(trials.values()))
    same_ground(list(trials.values()))
    places = [trials[n] if n in trials else Place(FORMULA, first.config, constructed(first.config)) for n in names]
    for a, b in combinations(places, 2):
        require(a.name != b.name, f"{asked}: {a.name} stands there twice")
        require(not torch.equal(a.weights, b.weights), f"{a.name} and {b.name} have the same weights")
    return places


def survey(places: Sequence[Place], ground: Ground, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """How sharp it is around two or three places, what lies between each two, and the plane through them.

    As JSON has it: every place a letter, what is not finite None. The plane goes through the first place and the
    others with their units in its order; of two places the third corner is the bend of the path between them.
    """
    points = []
    for letter, place in zip(LETTERS, places, strict=False):
        say(f"around {letter}, {place.name}")
        what = "weights set by formula" if place.name == FORMULA else place.config.describe()
        about = {"point": letter, "trial": place.name, "what": what}
        points.append(about | _around(ground, place.weights))
    pairs, ways = [], {}
    for i, j in combinations(range(len(places)), 2):
        name = f"{LETTERS[i]}–{LETTERS[j]}"
        say(f"between {name}")
        pair, *ways[i, j] = _between(ground, places[i].weights, places[j].weights)
        pairs.append({"pair": name} | pair)
    say("the plane through them")
    a, (b, bend) = places[0].weights, ways[0, 1]
    third = ways[0, 2][0] if len(places) > 2 else bend
    flat = landscape.plane(ground.loss, a, b, third, points=GRID)
    path = [] if len(places) > 2 else [landscape.bezier(a, bend, b, i / 24) for i in range(25)]
    plane = {
        "corners": [*LETTERS[: len(places)], "bend"][:3], "places": flat.corners.tolist(), "x": flat.x.tolist(),
        "y": flat.y.tolist(), "losses": flat.losses.tolist(), "path": [flat.place(w).tolist() for w in path],
    }  # fmt: skip
    found = {
        "task": ground.config.describe(), "split": ground.split, "problems": ground.problems,
        "guess": ground.data.uniform, "points": points, "pairs": pairs, "plane": plane, "notes": _notes(ground, points),
    }  # fmt: skip
    finite: dict[str, Any] = _finite(found)
    return {"answer": _answer(finite)} | finite


def _around(ground: Ground, at: Tensor) -> dict[str, Any]:
    """How sharp it is at these weights."""
    loss, (here, exact) = ground.loss, ground.read(at)
    top = sharpness.eigenvalues(loss, at, 1, seed=SEED, tolerance=0.01, limit=100)
    trace = sharpness.trace(loss, at, seed=SEED, draws=16)
    changes: dict[str, Any] = {}
    for kind, rows in (("row", ground.rows), ("raw", None)):
        ways = sharpness.directions(at, DRAWS, seed=SEED, rows=rows)
        read = [torch.tensor([ground.read(at + r * way) for way in ways]).double().mean(0).tolist() for r in RADII]
        losses, right = zip((here, exact), *read, strict=True)
        changes[kind] = {"radius": [0.0, *RADII], "loss": list(losses), "exact": list(right)}
    return {
        "loss": here,
        "exact": exact,
        "length": float(torch.linalg.vector_norm(at)),
        "eigenvalue": float(top.values[0]) if top.converged else None,
        "trace": {"value": trace.value, "error": trace.error, "draws": trace.draws},
        "adaptive": sharpness.adaptive_worst(loss, at, ADAPTIVE, seed=SEED),
        "tolerance": _tolerance(changes["row"]["radius"], changes["row"]["exact"]),
        "changes": changes,
    }


def _between(ground: Ground, a: Tensor, b: Tensor) -> tuple[dict[str, Any], Tensor, Tensor]:
    """The ways from a to b; b with its units in the order of a's; the bend of the path to it."""
    moved, _ = landscape.align(a, b, ground.shapes, ground.units, seed=SEED)
    bend = landscape.train_bend(ground.loss, a, moved, seed=SEED, steps=BEND)
    ways = {
        "straight": landscape.line(ground.loss, a, b),
        "aligned": landscape.line(ground.loss, a, moved),
        "bent": landscape.curve(ground.loss, a, bend, moved),
    }
    return {
        "distance": float(torch.linalg.vector_norm(a - b)),
        "distance_aligned": float(torch.linalg.vector_norm(a - moved)),
        "t": ways["bent"].t.tolist(),
        **{name: {"losses": way.losses.tolist(), "barrier": way.barrier} for name, way in ways.items()},
    }, moved, bend  # fmt: skip


def _tolerance(radii: Sequence[float], exact: Sequence[float]) -> float | None:
    """That of the answers which are right at these weights; None without any."""
    return sharpness.tolerance(radii, [e / exact[0] for e in exact], KEPT) if exact[0] else None


def _notes(ground: Ground, points: Sequence[dict[str, Any]]) -> list[str]:
    heads = "; heads of attention were not" if isinstance(ground.model, Transformer | Looped) else ""
    notes = [
        f"Units were put in the same order{heads}." if ground.units
        else f"Which units of {ground.config.model.name} can change places is not known: all stayed where they are.",
        "The largest eigenvalue, the trace and the raw changes depend on the scale of the weights (their length stands "
        "beside them): layers can be scaled so that the function stays the same and these do not. The nearer the loss "
        "is to zero, the smaller is the curvature, be it only because a scaled-up head is surer of the same answers.",
    ]  # fmt: skip
    for p in points:
        if p["exact"] < KEPT:
            notes.append(
                f"{p['point']} answers {p['exact']:.0%} of these problems right, so it is no solution of them and is "
                "left out where sharpness is compared. The problems are those of the trial that is named first."
            )
    if len(points) == 2:
        notes.append("The third corner of the plane is the bend of the path from A to B.")
    return notes


def _answer(found: dict[str, Any]) -> str:
    """What was found, in two sentences; lists stand in brackets."""
    points, pairs = found["points"], found["pairs"]

    def rise(way: str) -> str:
        barriers = {p["pair"]: p[way]["barrier"] for p in pairs}
        most = written(max((b for b in barriers.values() if b is not None), default=None))
        return most if len(pairs) == 1 else f"{most} ({', '.join(f'{k} {written(b)}' for k, b in barriers.items())})"

    def sharpest(values: dict[str, float | None], sign: int) -> str:
        known = sorted((sign * v, k) for k, v in values.items() if v is not None)
        if len(known) < 2 or known[-1][0] == known[-2][0]:
            return "None is sharper than the others" if len(values) > 2 else "Neither is sharper"
        return f"{known[-1][1]} is {'the sharpest' if len(values) > 2 else f'sharper than {known[0][1]}'}"

    solved = [p for p in points if p["exact"] >= KEPT]
    tolerance = {p["point"]: p["tolerance"] for p in solved}
    trace = {p["point"]: p["trace"]["value"] for p in solved}
    kept = ", ".join(f"{k} {'–' if v is None else f'{v:.0%}'}" for k, v in tolerance.items())
    curved = ", ".join(f"{k} {written(v)}" for k, v in trace.items())
    right = ", ".join(f"{p['point']} {p['exact']:.0%}" for p in points)
    flat, raw = sharpest(tolerance, -1), sharpest(trace, 1)
    sharp = (
        f"{flat} by the scale-invariant measure (tolerated change of the weights: {kept})"
        f"{' and' if raw == flat else f'; {raw}'} by the raw one (trace: {curved})"
        if len(solved) > 1
        else f"How sharp it is cannot be compared where no two answer the problems right ({right})"
    )
    return (
        f"{'Between A and B' if len(points) == 2 else 'Between two of the points'} the loss rises by "
        f"{'' if len(points) == 2 else 'up to '}{rise('straight')} on the straight line, by {rise('aligned')} once "
        f"units stand in the same order, by {rise('bent')} on a bent path. {sharp}; raw measures depend on how a "
        "function is written in weights."
    )


def written(value: float | None) -> str:
    """0.0013, 2.5, 1,240; – for none."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"


def _finite(data: Any) -> Any:
    """The same with None for numbers that JSON does not know."""
    if isinstance(data, dict):
        return {k: _finite(v) for k, v in data.items()}
    if isinstance(data, list):
        return [_finite(v) for v in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
