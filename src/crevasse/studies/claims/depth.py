"""C3: m layers cannot compute n > m steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from crevasse.config import TrialConfig
from crevasse.formats import FORMATS
from crevasse.rules import RULES
from crevasse.solutions import constructed_scores, doubling_model
from crevasse.studies.base import Arm, Budget, Row
from crevasse.studies.claims.base import Claim, Decision, Evidence, Picture, Ruling, Series, effect
from crevasse.studies.measures import Measure
from crevasse.tasks import parse_task

#: Short name, words, text with a place for the length.
TASKS = (
    ("z120", "products in Z120, which is solvable", "words:group=Z120,T={},gap=,beyond={}"),
    ("affine", "fresh affine maps mod 11", "affine:maps=fresh,n={},gap=,beyond={}"),
    ("s5", "products in S5, which is not solvable", "words:group=S5,T={},gap=,beyond={}"),
)
#: On what the construction is run: a group small enough for a multiplication table in the hidden units.
CONSTRUCTED = "iterated-product:p=7,T={},beyond={}"
#: The longest length that is tried with a construction of m layers is 2ᵐ + 1.
LAYERS = (1, 2, 3, 4)
FOUND = 0.9


class Depth(Claim):
    """See its sentences."""

    number: ClassVar[str] = "C3"
    title: ClassVar[str] = "m layers, n > m steps"
    quote: ClassVar[str] = (
        "If there are m layers, and we ask it to solve f(n) with m<n, then it is impossible for the model to solve "
        "f(n) unless it can smear the computation over n tokens"
    )
    hypothesis: ClassVar[str] = (
        "No m-layer transformer computes more than m steps of a recursion whose operands it reads, neither with "
        "weights set by formula nor with trained ones."
    )
    experiment: ClassVar[str] = (
        "A transformer whose weights are set by formula so that each layer doubles how far a position has multiplied; "
        "and trained ones of different depth on products of different length, answered directly."
    )
    rule: ClassVar[str] = (
        "A length is reached if held-out answers are .9 right. Supported if neither the construction nor any trained "
        "depth reaches a length above m; refuted if both do; half right if one does."
    )
    change: ClassVar[str] = (
        "Training that finds the doubling, or any other way to more than m steps: more data, all lengths at once, "
        "states of all prefixes as targets."
    )

    def _grid(self, budget: Budget) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Tasks, depths, lengths and widths."""
        if budget == "full":
            return ("z120", "affine", "s5"), (1, 2, 3, 4, 6), (2, 3, 4, 8, 16, 32), (64,)
        if budget == "minutes":
            return ("z120", "affine", "s5"), (1, 2, 4), (2, 4), (64,)
        return ("s5",), (1,), (2,), (64,)

    def arms(self, budget: Budget) -> list[Arm]:
        tasks, depths, lengths, _ = self._grid(budget)
        texts = {name: (words, text) for name, words, text in TASKS}
        seeds, steps = {"smoke": (1, 60), "minutes": (1, 800), "full": (3, 2000)}[budget]

        def one(task: str, depth: int, length: int, width: int) -> Arm:
            words, text = texts[task]
            title = f"{words}: {length} steps, {depth} {'layer' if depth == 1 else 'layers'}, width {width}"
            return self.make(
                f"{task}-{depth}-{length}-{width}", title, text.format(length, length + 1), "direct",
                f"transformer:layers={depth},width={width}", "adamw:lr=0.001,decay=1", seeds=seeds, steps=steps,
                batch=256, train=12_000 if length == 2 else 20_000,
            )  # fmt: skip

        grid = [one(t, d, n, 64) for t in tasks for d in depths for n in lengths]
        if budget == "full":  # does width stand in for depth?
            grid += [one("s5", 2, n, width) for width in (32, 128) for n in (2, 3, 4)]
        return grid

    def measure(self, budget: Budget, trials: Path, rows: Sequence[Row]) -> list[Measure]:
        found = []
        for layers in LAYERS if budget != "smoke" else LAYERS[:2]:
            for length in sorted({2, layers + 1, 2**layers, 2**layers + 1}):
                task = parse_task(CONSTRUCTED.format(length, length + 1))
                config = TrialConfig(
                    task, FORMATS.parse("direct"), doubling_model(task, layers), RULES.parse("sgd"), train=4,
                    held_out=1000, steps=0,
                )  # fmt: skip
                scores = constructed_scores(config)
                found.append(self.note("constructed", f"{layers} layers", scores.get("random"), x=length))
        return found

    def decide(self, evidence: Evidence) -> Ruling:
        built = {
            m: max((round(p["x"] or 0) for p in evidence.measured("constructed", f"{m} layers") if p["value"] == 1.0),
                   default=0)
            for m in LAYERS if evidence.measured("constructed", f"{m} layers")
        }  # fmt: skip
        trained = self._reached(evidence)
        can = any(n > m for m, n in built.items())
        does = any(n > m for of in trained.values() for m, n in of.items())
        decision: Decision = "refuted" if can and does else "half right" if can or does else "supported"
        words = {name: words.split(",")[0] for name, words, _ in TASKS}
        key = (
            "weights set by formula compute " + ", ".join(f"{n} steps in {m}" for m, n in built.items()) + " layers"
            "; the longest that training reached by depth: "
            + "; ".join(f"{words[t]} " + ", ".join(f"{n or 'none'} in {m}" for m, n in of.items())
                        for t, of in trained.items())
        )  # fmt: skip
        series: list[Series] = [
            {"name": "set by formula", "x": list(built), "y": list(built.values())},
            {"name": "n = m", "x": list(built), "y": list(built)},
        ]
        for task, of in trained.items():
            series.append({"name": f"trained: {words[task]}", "x": list(of), "y": [n or None for n in of.values()]})
        return Ruling(
            decision, key,
            [effect(f"most steps in {m} layers, set by formula", float(n)) for m, n in built.items()]
            + [effect(f"most steps in {m} layers, trained on {words[t]}", float(n))
               for t, of in trained.items() for m, n in of.items()],
            [{"kind": "lines", "caption": "The longest product that is computed, by the number of layers",
              "x": "layers m", "y": "steps n", "log_y": True, "series": series}, *_matrices(evidence)],
        )  # fmt: skip

    def _reached(self, evidence: Evidence) -> dict[str, dict[int, int]]:
        """Task -> depth -> the longest length reached; 0 for none. The width of 64 alone."""
        found: dict[str, dict[int, int]] = {}
        for name in dict.fromkeys(r["arm"].partition("/")[2] for r in evidence.rows):
            task, depth, length, width = name.split("-")
            if width == "64":
                of = found.setdefault(task, {})
                reached = (evidence.mean(name) or 0.0) >= FOUND
                of[int(depth)] = max(of.get(int(depth), 0), int(length) if reached else 0)
        return found


def _matrices(evidence: Evidence) -> list[Picture]:
    """Depth against length, one matrix a task."""
    cells = [name.split("-") for name in dict.fromkeys(r["arm"].partition("/")[2] for r in evidence.rows)]
    found: list[Picture] = []
    for task, words, _ in TASKS:
        depths = sorted({int(c[1]) for c in cells if c[0] == task and c[3] == "64"})
        lengths = sorted({int(c[2]) for c in cells if c[0] == task and c[3] == "64"})
        if depths:
            found.append({
                "kind": "matrix", "caption": f"Held-out answers that are right: {words}", "x": "", "y": "",
                "columns": [f"n = {n}" for n in lengths], "rows": [f"m = {m}" for m in depths],
                "values": [[evidence.mean(f"{task}-{m}-{n}-64") for n in lengths] for m in depths],
            })  # fmt: skip
    return found
