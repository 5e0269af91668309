"""The Python door: the same work as the command line, as functions.

Nothing heavy is imported before it is needed, so that ``import crevasse`` costs nothing.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crevasse.errors import UserError
from crevasse.spec import require

if TYPE_CHECKING:
    from crevasse.config import TrialConfig
    from crevasse.sweep import Event
    from crevasse.sweep.runner import Listener

#: Where trials go when nobody says where.
DEFAULT_OUT = Path("crevasse-out")


def make_config(
    task: str, format: str = "direct", model: str = "transformer", rule: str = "adamw", **fields: Any
) -> "TrialConfig":
    """A trial's config from the short texts of the command line, such as ``"iterated-product:p=13,T=1-6"``.

    fields: any of `crevasse.trial.TrialConfig` (train, steps, batch, seed, labels, …). Raises UserError.
    """
    import dataclasses

    from crevasse.config import TrialConfig
    from crevasse.errors import unknown
    from crevasse.formats import FORMATS
    from crevasse.models import MODELS
    from crevasse.rules import RULES
    from crevasse.tasks import parse_task

    allowed = [f.name for f in dataclasses.fields(TrialConfig)][4:]
    for name in fields:
        if name not in allowed:
            raise unknown("field of a trial", name, allowed)
    return TrialConfig(parse_task(task), FORMATS.parse(format), MODELS.parse(model), RULES.parse(rule), **fields)


def run(
    task: str,
    format: str = "direct",
    model: str = "transformer",
    rule: str = "adamw",
    *,
    seeds: int = 1,
    out: str | Path = DEFAULT_OUT,
    on_event: "Callable[[Event], None] | None" = None,
    workers: int | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Train, and tell whether the rule was found. -> what ``crevasse run --json`` prints.

    seeds: trials that differ in their seed only, side by side on all cores; scores are then means with
    intervals. A trial that was run before is read, not run again. Raises UserError.

    >>> result = crevasse.run("iterated-product", "trace", steps=300)  # doctest: +SKIP
    >>> result["splits"]["random"]  # doctest: +SKIP
    1.0
    """
    from dataclasses import replace

    from crevasse.sweep import run_all

    require(1 <= seeds <= 10_000, f"seeds must lie between 1 and 10000, not {seeds}")
    config = make_config(task, format, model, rule, **fields)
    configs = [replace(config, seed=config.seed + i) for i in range(seeds)]
    # One trial needs no second process; a Ctrl-C then reaches it directly.
    records = run_all(configs, Path(out), on_event=on_event, workers=1 if seeds == 1 else workers)
    return summarise(records)


def summarise(records: list[dict[str, Any]]) -> dict[str, Any]:
    """One object for one trial, or for several that differ in their seed (scores with intervals)."""
    if len(records) > 1:
        from crevasse.sweep.summary import over_seeds

        return {"trial": [r["id"] for r in records], **over_seeds(records)}
    result = records[0]["result"]
    keys = ("train", "splits", "rule_score", "lockstep", "s_max", "learned", "memorising", "steps", "passes",
            "samples", "seconds", "chance", "ceiling")  # fmt: skip
    return {
        "trial": records[0]["id"],
        "status": records[0]["status"],
        **{k: result[k] for k in keys},
        "notes": sorted(set(result["notes"])),
    }


def study(
    name: str,
    budget: str = "minutes",
    *,
    out: str | Path | None = None,
    on_event: Callable[..., None] | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Answer a question: run its trials, write evidence.parquet, verdict.json and index.html. -> the verdict.

    Raises UserError.
    """
    from crevasse.report import build_report
    from crevasse.studies import BUDGETS, STUDIES, run_study

    chosen = STUDIES.parse(name)
    if budget not in BUDGETS:
        from crevasse.errors import unknown

        raise unknown("budget", budget, BUDGETS)
    folder = Path(out) if out is not None else study_folder(name, budget)
    verdict = run_study(chosen, budget, folder, on_event=on_event, workers=workers)
    build_report(folder)
    return verdict


def sweep(
    path: str | Path,
    *,
    budget: str | None = None,
    out: str | Path | None = None,
    engine: str = "local",
    address: str | None = None,
    resume: bool = False,
    dry_run: bool = False,
    workers: int | None = None,
    on_event: "Listener | None" = None,
) -> dict[str, Any]:
    """Run what is missing of the sweep in a TOML file; write sweep.json and evidence.parquet. -> what sweep.json says.

    out: the folder [crevasse-out/NAME-BUDGET]. engine: local or ray, at `address`. resume: the folder must hold trials
    already. dry_run: only tell what would run and about how long it would take, measured on a few steps. Raises
    UserError; if trials could not run, after the results of the others are written.
    """
    from crevasse.sweep.estimate import estimate
    from crevasse.sweep.grid import read_sweep
    from crevasse.sweep.runner import make_engine, require_begun, run_sweep

    require(workers is None or workers >= 1, f"workers must be at least 1, not {workers}")
    chosen, grid = make_engine(engine, address), read_sweep(Path(path), budget)
    folder = Path(out) if out is not None else sweep_folder(path, budget)
    if resume:
        require_begun(folder)
    if dry_run:
        return estimate(grid, folder, workers=workers)
    return run_sweep(grid, folder, engine=chosen, workers=workers, on_event=on_event)


def landscape(
    trials: Sequence[str],
    *,
    split: str = "train",
    out: str | Path | None = None,
    on_note: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """What lies between two or three solutions; write landscape.json and index.html. -> what landscape.json says.

    trials: the beginnings of ids or folders, and perhaps `constructed`: weights set by formula for task and model of
    the first trial. split: of its problems, those on which the loss is read. out: the folder
    [crevasse-out/landscape-A-B]. Raises UserError.
    """
    import shlex

    from crevasse import store
    from crevasse.landscape import Ground
    from crevasse.report import landscape as page
    from crevasse.survey import FORMULA, read_places, survey

    places = read_places(trials, DEFAULT_OUT)
    ground = Ground(next(p.config for p in places if p.name != FORMULA), split)
    folder = Path(out) if out is not None else landscape_folder([p.name for p in places])
    store.make_folder(folder)
    found = survey(places, ground, on_note)
    command = shlex.join(["crevasse", "landscape", *trials, *(["--split", split] if split != "train" else [])])
    store.write_json(folder / page.LANDSCAPE, found)
    store.write_atomically(folder / page.PAGE, page.render(found, command).encode("utf-8", "replace"))
    return found


def landscape_folder(ids: Sequence[str]) -> Path:
    """Where a landscape goes when nobody says where: ``crevasse-out/landscape-A-B``, by the ids of its trials."""
    return DEFAULT_OUT / "-".join(["landscape", *ids])


def sweep_folder(path: str | Path, budget: str | None = None) -> Path:
    """Where a sweep goes when nobody says where: ``crevasse-out/NAME`` or ``crevasse-out/NAME-BUDGET``."""
    return DEFAULT_OUT / _as_folder("-".join(filter(None, [Path(path).stem, budget])))


def study_folder(name: str, budget: str) -> Path:
    """Where a study goes when nobody says where: ``crevasse-out/NAME-BUDGET``, options of the name included."""
    return DEFAULT_OUT / f"{_as_folder(name)}-{budget}"


def _as_folder(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.=-]+", "-", name).strip("-")


def solve(task: str, inputs: list[str]) -> dict[str, Any]:
    """The exact answer and the trace of one problem. -> what ``crevasse solve --json`` prints.

    inputs: ``name=value`` words; those that name an option of the task (p=13) set it. Raises UserError.
    """
    import dataclasses

    from crevasse.tasks import BLANK, TASKS, parse_problem, parse_task

    name, _, options = task.partition(":")
    if name == "pairs":
        pairs: Any = parse_task(task)
        require(len(inputs) == 1, "pairs takes one input: the text of a problem")
        x, found = pairs.find(inputs[0]), pairs
        shown: Any = {"problem": inputs[0]}
    else:
        chosen = TASKS.parse(task)
        taken = {v.name for v in chosen.inputs}
        fields = {f.name for f in dataclasses.fields(chosen)} - taken  # type: ignore[arg-type]
        settings = [w for w in inputs if w.partition("=")[0] in fields and "=" in w]
        if settings:
            # A modulus in the words changes which inputs there are, and the sizes of training do not matter.
            task = f"{name}:{','.join(filter(None, [options, *settings]))}"
            chosen = TASKS.parse(task)
        x = parse_problem(chosen, [w for w in inputs if w not in settings])
        found = chosen
        shown = {}
        for at, v in enumerate(chosen.inputs):
            shown[v.name] = [int(i) for i in x[0, at:]] if v.sequence else int(x[0, at])
    solution = found.solve(x)

    def plain(row: Any) -> Any:
        values = [v if isinstance(v, str) else _written(found, int(v)) for v in row if isinstance(v, str) or v != BLANK]
        return values[0] if len(values) == 1 else values

    trace = None
    if solution.states is not None:
        trace = [plain(s) for s in solution.states[0] if isinstance(s[0], str) or s[0] != BLANK]
    return {"task": found.name, "input": shown, "answer": plain(solution.answers[0]), "trace": trace}


def teach(
    examples: Sequence[str],
    seconds: float = 20.0,
    *,
    consolidate: bool = False,
    out: str | Path | None = None,
    on_progress: Callable[[Any], None] | None = None,
) -> dict[str, Any]:
    """What one to five examples (``"3=6"``, ``"12,18=6"``) teach; write teach.json and index.html.

    -> what teach.json says. programs: the shortest that give all of them, each with its length in bits and the share by
    which it is believed; empty where none was found. next: what the believed programs say of the inputs that follow,
    most believed first. telling: the further input that would tell them apart best. complete: false where the time
    ended the search. consolidated: what a network answers that was trained on what the shortest program imagines, where
    `consolidate` asks for it; its trials lie in the folder. out: the folder [crevasse-out/teach-EXAMPLES]. Raises
    UserError.
    """
    import dataclasses
    import shlex

    from crevasse import store
    from crevasse.lessons.induce import induce, parse_pairs
    from crevasse.programs.language import text
    from crevasse.report import teach as page

    require(0 < seconds <= 3600, f"--seconds must be above 0 and at most 3600, not {seconds:g}")
    pairs = parse_pairs(examples)
    folder = store.make_folder(Path(out) if out is not None else teach_folder(examples))
    found = induce(pairs, seconds)

    def predicted(at: tuple[int, ...]) -> dict[str, Any]:
        by_share = sorted(found.predictions(*at).items(), key=lambda e: -e[1])
        return {"input": list(at), "values": [{"value": v, "share": share} for v, share in by_share]}

    lesson = {
        "examples": [{"input": list(at), "value": v} for at, v in found.pairs.items()],
        "programs": [{"program": text(f.program), "bits": f.bits, "share": f.share} for f in found.programs],
        "next": [predicted(at) for at in found.next_inputs] if found.programs else [],
        "telling": predicted(found.telling) if found.telling is not None else None,
        "sure": found.sure,
        "complete": found.complete,
        "consolidated": None,
    }
    learnt = None
    if consolidate and found.programs:
        from crevasse.lessons.consolidate import consolidate as trained

        learnt = trained(found.programs[0].program, found.pairs, folder, progress=on_progress)
        lesson["consolidated"] = dataclasses.asdict(learnt)
    options = [*(["--seconds", f"{seconds:g}"] if seconds != 20 else []), *(["--consolidate"] if consolidate else [])]
    text_of_page = page.render(found, shlex.join(["crevasse", "teach", *examples, *options]), learnt)
    store.write_json(folder / page.TEACH, lesson)
    store.write_atomically(folder / page.PAGE, text_of_page.encode("utf-8", "replace"))
    return lesson


def teach_folder(examples: Sequence[str]) -> Path:
    """Where a lesson goes when nobody says where: ``crevasse-out/teach-EXAMPLES``; of long ones the beginning, and a
    number that stands for the rest. Raises UserError."""
    import hashlib

    from crevasse.lessons.induce import parse_pairs

    name = "-".join(f"{','.join(map(str, at))}={v}" for at, v in parse_pairs(examples).items())
    if len(name) > 60:
        name = f"{name[:50]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return DEFAULT_OUT / f"teach-{_as_folder(name)}"


def _written(task: Any, value: int) -> Any:
    """A number as itself, or as the text that a task with significant figures writes."""
    text = task.spell(value)
    return value if text == str(value) else text


__all__ = [
    "DEFAULT_OUT",
    "UserError",
    "landscape",
    "make_config",
    "run",
    "solve",
    "study",
    "summarise",
    "sweep",
    "teach",
]
