"""C3: m layers cannot compute n > m steps."""

from collections.abc import Callable, Sequence
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

#: Short name, words, text with a place for the length of the input, and how many elements there are more than steps.
TASKS = (
    ("z120", "products in Z120, which is solvable", "words:group=Z120,T={},gap=,beyond={}", 1),
    ("affine", "fresh affine maps mod 11", "affine:maps=fresh,n={},gap=,beyond={}", 0),
    ("s5", "products in S5, which is not solvable", "words:group=S5,T={},gap=,beyond={}", 1),
)
#: On what the construction is run: a group small enough for a multiplication table in the hidden units.
CONSTRUCTED = "iterated-product:p=7,T={},beyond={}"
#: m layers of it multiply 2ᵐ elements, which is 2ᵐ − 1 steps; one more is tried.
LAYERS = (1, 2, 3, 4)
WIDTH = 64
#: From so many steps on a training takes minutes, so there is one of each: enough to reach a length, which a seed does.
LONG = 31


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
        "A transformer whose weights are set by formula so that each layer doubles how far a position has "
        "multiplied; and trained ones of different depth on products of different length, answered directly."
    )
    rule: ClassVar[str] = (
        "n steps are reached if a seed answers .9 of the held-out problems; a product of n + 1 elements is n steps. "
        "Refuted if the construction and a trained transformer both reach n above m; half right if only the "
        "construction does, and some that were trained on n above m learnt their training problems; supported if "
        "neither does; else undecided."
    )
    change: ClassVar[str] = (
        "Training that finds the doubling, or any other way to more than m steps: more data, all lengths at once, "
        "states of all prefixes as targets."
    )

    def _grid(self, budget: Budget) -> tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]]:
        """Tasks, depths and numbers of steps."""
        if budget == "full":
            return ("z120", "affine", "s5"), (1, 2, 3, 6), (2, 3, 7, 31)
        if budget == "minutes":
            return ("z120", "affine", "s5"), (1, 2), (2, 3)
        return ("s5",), (1,), (2,)

    def arms(self, budget: Budget) -> list[Arm]:
        tasks, depths, steps = self._grid(budget)
        texts = {name: (words, text, more) for name, words, text, more in TASKS}
        seeds, updates, batch = {"smoke": (1, 60, 256), "minutes": (1, 800, 256), "full": (3, 1200, 128)}[budget]

        def one(task: str, depth: int, n: int, width: int) -> Arm:
            words, text, more = texts[task]
            title = f"{words}: {_steps(n)}, {depth} {'layer' if depth == 1 else 'layers'}"
            return self.make(
                f"{task}-{depth}-{n}-{width}", f"{title}, width {width}", text.format(n + more, n + more + 1), "direct",
                f"transformer:layers={depth},width={width}", "adamw:lr=0.001,decay=1",
                seeds=seeds if n < LONG else 1, steps=updates, batch=batch, train=20_000,
            )  # fmt: skip

        grid = [one(t, d, n, WIDTH) for t in tasks for d in depths for n in steps]
        if budget == "full":  # does width stand in for depth?
            grid += [one("s5", 2, n, width) for width in (32, 128) for n in (2, 3)]
        return grid

    def measure(self, budget: Budget, trials: Path, rows: Sequence[Row]) -> list[Measure]:
        found = []
        for layers in LAYERS if budget != "smoke" else LAYERS[:2]:
            for steps in sorted({1, layers, 2**layers - 1, 2**layers}):
                task = parse_task(CONSTRUCTED.format(steps + 1, steps + 2))
                config = TrialConfig(
                    task, FORMATS.parse("direct"), doubling_model(task, layers), RULES.parse("sgd"), train=4,
                    held_out=1000, steps=0,
                )  # fmt: skip
                scores = constructed_scores(config)
                found.append(self.note("constructed", f"{layers} layers", scores.get("random"), x=steps))
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
        cells = [name.split("-") for name in _names(evidence)]
        told = any(int(n) > int(m) and evidence.tested("-".join((t, m, n, w))) for t, m, n, w in cells)
        decision: Decision = "undecided"
        if can and does:
            decision = "refuted"
        elif can and told:
            decision = "half right"
        elif not can and not does:
            decision = "supported"
        words = {name: words.split(",")[0] for name, words, *_ in TASKS}
        key = (
            f"weights set by formula compute {', '.join(f'{_steps(n)} in {m}' for m, n in built.items())} layers"
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
        for name in _names(evidence):
            task, depth, steps, width = name.split("-")
            if int(width) == WIDTH:
                of = found.setdefault(task, {})
                of[int(depth)] = max(of.get(int(depth), 0), int(steps) if evidence.ever(name) else 0)
        return found


def _steps(n: int) -> str:
    return f"{n} {'step' if n == 1 else 'steps'}"


def _names(evidence: Evidence) -> list[str]:
    """Of its arms: task-depth-steps-width."""
    return list(dict.fromkeys(r["arm"].partition("/")[2] for r in evidence.rows))


def _matrices(evidence: Evidence) -> list[Picture]:
    """Depth against steps, one matrix a task; and width against steps where more than one was tried."""
    cells = [name.split("-") for name in _names(evidence)]
    found: list[Picture] = []

    def draw(words: str, task: str, of: list[tuple[str, str]], at: Callable[[str, str], str], word: str) -> None:
        rows, columns = ([*dict.fromkeys(c[i] for c in of)] for i in (0, 1))
        found.append({
            "kind": "matrix", "caption": f"Held-out answers that are right: {words}", "x": "", "y": "",
            "columns": [f"n = {n}" for n in columns], "rows": [f"{word} = {m}" for m in rows],
            "values": [[evidence.mean(at(m, n)) for n in columns] for m in rows],
        })  # fmt: skip

    for task, words, *_ in TASKS:
        if deep := [(d, n) for t, d, n, w in cells if t == task and int(w) == WIDTH]:
            draw(words, task, deep, lambda d, n, t=task: f"{t}-{d}-{n}-{WIDTH}", "m")  # type: ignore[misc]
    wide = [(w, n) for t, d, n, w in cells if (t, d) == ("s5", "2") and n in ("2", "3")]
    if len({w for w, _ in wide}) > 1:
        wide.sort(key=lambda c: (int(c[0]), int(c[1])))
        draw("products in S5 by two layers of another width", "s5", wide, lambda w, n: f"s5-2-{n}-{w}", "width")
    return found
