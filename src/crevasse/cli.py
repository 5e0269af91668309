"""The command line. Scripts rely on it: see docs/cli.md."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crevasse.errors import UserError, unknown
from crevasse.processes import is_first
from crevasse.spec import require

if TYPE_CHECKING:
    from crevasse.spec import Table

DONE, BAD_INPUT, INTERRUPTED = 0, 2, 130
Decorator = Callable[[Callable[..., None]], Callable[..., None]]
BUDGETS = ("smoke", "minutes", "full")


class _Commands(click.Group):
    """A group that knows the nearest name to one that does not exist, and keeps the order of the file.

    A command may have two words (`models pull`) beside the one that is called by the first (`models NAME`).
    """

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        first, *rest = args
        words = [word for word in rest if not word.startswith("-")]
        both = " ".join([first, *words[:1]])
        if words and both in self.commands:
            rest.remove(words[0])
            return both, self.commands[both], rest
        longer = [command for command in self.commands if command.startswith(f"{first} ")]
        if longer and len(words) > 1:
            raise unknown("command", both, longer)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is None and not cmd_name.startswith("-"):
            raise unknown("command", cmd_name, self.commands)
        return found

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


_json: Decorator = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
_quiet: Decorator = click.option("--quiet", is_flag=True, help="No progress on stderr.")


def _out(default: str) -> Decorator:
    return click.option("--out", type=click.Path(path_type=Path), default=None, help=f"Folder [{default}].")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="crevasse", message="%(prog)s %(version)s")
def cli() -> None:
    """Did training find the rule, or memorise the answers — and which update rule finds the rule?

    Start with `crevasse study factorial`. Names take options: transformer:width=128,layers=4.
    """


@cli.command()
@click.argument("name")
@click.option("--budget", default="minutes", metavar="|".join(BUDGETS), show_default=True)
@click.option("--rule", metavar="FILE", default=None, help="A rule of your own (my_rule.py), for `study rules`.")
@_out("crevasse-out/NAME-BUDGET")
@_json
@_quiet
def study(name: str, budget: str, rule: str | None, out: Path | None, as_json: bool, quiet: bool) -> None:
    """Answer a question: evidence.parquet, verdict.json and index.html."""
    from crevasse import api
    from crevasse.studies import STUDIES

    if rule is not None:
        require(name.partition(":")[0] == "rules", f"--rule goes with `crevasse study rules`, not with {name}")
        name = f"{name}{',' if ':' in name else ':'}rule={rule}"
    STUDIES.parse(name)  # an unknown name is told before anything is made
    if budget not in BUDGETS:
        raise unknown("budget", budget, BUDGETS)
    folder = out or api.study_folder(name, budget)
    with _live(quiet) as live:
        verdict = api.study(name, budget, out=folder, on_event=live.study_event)
    if as_json:
        _print_json(verdict)
        return
    from crevasse.terminal import print_verdict

    print_verdict(verdict, folder)


@cli.command()
@click.argument("task")
@click.argument("options", nargs=-1, metavar="[OPTION=VALUE]…")
@click.option("--format", "form", default="direct", show_default=True)
@click.option("--model", default="transformer", show_default=True)
@click.option("--rule", default="adamw", show_default=True)
@click.option("--steps", type=int, default=1000, show_default=True)
@click.option("--batch", type=int, default=128, show_default=True, help="Examples a step.")
@click.option("--rows", type=int, default=0, help="Rows forward plus backward after which training ends [never].")
@click.option("--schedule", default="cosine", show_default=True, help="Of the learning rate: cosine or constant.")
@click.option("--warmup", type=float, default=0.05, show_default=True, help="Share of the steps in which it rises.")
@click.option("--chunk", type=int, default=0, help="Tokens at once; more of a batch are accumulated [all].")
@click.option("--train", type=int, default=None, help="Training problems [all, at most 2000 of a large domain].")
@click.option("--steer", type=int, default=0, help="Of those, problems that a rule may ask about instead [0].")
@click.option("--held-out", type=int, default=1000, show_default=True, help="Most problems in each held-out split.")
@click.option("--labels", default="true", show_default=True, help="true, random, or noisy=SHARE.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--seeds", type=int, default=1, show_default=True, help="Trials with as many seeds, from --seed on.")
@click.option("--probe-every", type=int, default=20, show_default=True, help="Steps between readings of the losses.")
@_out("crevasse-out")
@_json
@_quiet
def run(
    task: str, options: tuple[str, ...], form: str, model: str, rule: str, steps: int, batch: int, rows: int,
    schedule: str, warmup: float, chunk: int, train: int | None, steer: int, held_out: int, labels: str, seed: int,
    seeds: int, probe_every: int,
    out: Path | None, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Train one learner on a task (iterated-product T=1-6, or pairs:my.csv) and judge it."""
    from crevasse import api
    from crevasse.sweep.grid import parse_labels

    labels, share = parse_labels(labels)
    folder = out or api.DEFAULT_OUT
    with _live(quiet) as live:
        result = api.run(
            _with_options(task, options), form, model, rule, seeds=seeds, out=folder, on_event=live.trial_event,
            steps=steps, batch=batch, rows=rows, schedule=schedule, warmup=warmup, chunk=chunk, train=train,
            steer=steer, held_out=held_out, labels=labels, noise=share, seed=seed, probe_every=probe_every,
        )  # fmt: skip
    if as_json:
        _print_json(result)
        return
    from crevasse.terminal import print_result

    print_result(result, folder)


@cli.command()
@click.argument("config", type=click.Path(path_type=Path), metavar="CONFIG.toml")
@click.option("--budget", default=None, metavar="NAME", help="A budget that the file names.")
@click.option("--engine", default="local", metavar="local|ray", show_default=True)
@click.option("--address", default=None, help="Of the Ray cluster.")
@click.option("--resume", is_flag=True, help="Go on with a sweep: the folder must hold trials already.")
@click.option("--dry-run", is_flag=True, help="Tell what would run and about how long it takes.")
@click.option("--workers", type=click.IntRange(min=1), default=None, help="Processes [as many as there are cores].")
@_out("crevasse-out/NAME or crevasse-out/NAME-BUDGET")
@_json
@_quiet
def sweep(
    config: Path, budget: str | None, engine: str, address: str | None, resume: bool, dry_run: bool,
    workers: int | None, out: Path | None, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Run every combination of what a file lists: sweep.json and evidence.parquet."""
    from crevasse import api

    with _live(quiet or dry_run) as live:
        result = api.sweep(
            config, budget=budget, out=out, engine=engine, address=address, resume=resume, dry_run=dry_run,
            workers=workers, on_event=live.sweep_event,
        )  # fmt: skip
    if as_json:
        _print_json(result)
        return
    from crevasse.terminal import print_plan, print_sweep

    if dry_run:
        print_plan(result)
    else:
        print_sweep(result, out or api.sweep_folder(config, budget))


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option(
    "--where", metavar="SQL", default=None, help="Only trials for which it holds: train >= .9 and random < .2"
)
@click.option("--sort", metavar="COLUMN", default=None, help="Lowest first; -COLUMN: highest first.")
@click.option("--limit", type=click.IntRange(min=0), default=None, help="At most so many trials.")
@click.option("--verify", is_flag=True, help="Check every file of every trial that is listed.")
@_out("crevasse-out")
@_json
def ls(
    folder: Path | None, where: str | None, sort: str | None, limit: int | None, verify: bool, out: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """List the trials in a folder, filtered and sorted by what stands in their config and result."""
    from crevasse import api, catalogue

    root = folder or out or api.DEFAULT_OUT
    if not root.is_dir():
        raise UserError(f"{root}: no such folder (trials go to {api.DEFAULT_OUT} unless --out says otherwise)")
    table, damaged = catalogue.read_catalogue(root)
    rows = catalogue.select(table, where, sort, limit).to_pylist()
    if verify:
        _verify([root / r["folder"] for r in rows], damaged, as_json)
        return
    if as_json:
        _print_json({"trials": [_listed(r, root) for r in rows], "damaged": damaged})
        return
    from crevasse.terminal import print_trials

    print_trials(rows, damaged, limited=limit is not None)


def _listed(row: dict[str, Any], root: Path) -> dict[str, Any]:
    """A row of the catalogue as `ls --json` prints it."""
    from crevasse.catalogue import SPLITS

    splits = None if row["steps_taken"] is None else {t: row[t] for t in SPLITS if row[t] is not None}
    return {
        **{k: row[k] for k in ("id", "status", "describe")}, "folder": str(root / row["folder"]),
        "train": row["train"], "splits": splits, "lockstep": row["lockstep"], "s_max": row["s_max"],
        "steps": row["steps_taken"], "seconds": row["seconds"],
    }  # fmt: skip


def _verify(folders: list[Path], damaged: list[str], as_json: bool) -> None:
    """Check trials in full, besides those that could not even be listed. Raises UserError if any is damaged."""
    import dataclasses

    from crevasse import transfer
    from crevasse.config import REVISION

    found = transfer.verify(folders, REVISION)
    found.trials += len(damaged)
    found.damaged = damaged + found.damaged
    if as_json:
        _print_json(dataclasses.asdict(found))
    else:
        for line in (*found.damaged, *found.older):
            click.echo(line)
        click.echo(f"{found.trials} trials: {found.verified} verified, {found.running} unfinished, "
                   f"{len(found.damaged)} damaged")  # fmt: skip
    if found.damaged:
        raise UserError(f"{len(found.damaged)} of {found.trials} trials are damaged")


@cli.command()
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SOURCE…")
@_out("crevasse-out")
@_json
def merge(sources: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Copy from other folders the trials that a folder lacks; nothing is overwritten by something lesser."""
    import dataclasses

    from crevasse import api, transfer

    root = out or api.DEFAULT_OUT
    merged = transfer.merge(sources, root)
    if as_json:
        _print_json(dataclasses.asdict(merged))
        return
    for line in (*merged.differs, *merged.damaged, *merged.in_use):
        click.echo(line)
    click.echo(f"{root}: {len(merged.copied)} trials copied, {len(merged.checkpoints)} further checkpoints, "
               f"{merged.kept} kept as they were")  # fmt: skip


@cli.command()
@click.argument("trial")
@_out("crevasse-out")
@_json
def show(trial: str, out: Path | None, as_json: bool) -> None:
    """Show one trial, named by the beginning of its id or by its folder."""
    from crevasse import api, store

    record = store.load_trial(store.find_trial(trial, out or api.DEFAULT_OUT))
    if as_json:
        _print_json(record)
        return
    from crevasse.terminal import print_trial

    print_trial(record)


@cli.command()
@click.argument("trials", nargs=-1, required=True)
@_out("crevasse-out")
@_json
def compare(trials: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Set trials side by side: what differs between their configs, and what came of it."""
    from crevasse import api, store

    root = out or api.DEFAULT_OUT
    records = [store.load_trial(store.find_trial(t, root)) for t in trials]
    if len(records) < 2:
        raise UserError("compare needs at least two trials")
    differing = _differences(records)
    if as_json:
        _print_json({"trials": [{"id": r["id"], "status": r["status"]} | _scores(r) for r in records],
                     "differences": differing})  # fmt: skip
        return
    from crevasse.terminal import print_comparison

    print_comparison(records, differing)


@cli.command()
@click.argument("trials", nargs=-1, required=True, metavar="A B [C]")
@click.option("--split", default="train", show_default=True, help="Problems of the first trial that the loss is of.")
@_out("crevasse-out/landscape-A-B")
@_json
@_quiet
def landscape(trials: tuple[str, ...], split: str, out: Path | None, as_json: bool, quiet: bool) -> None:
    """What lies between two or three trials, and how sharp it is around each: landscape.json and index.html.

    One of them may be the word constructed: weights set by formula.
    """
    from crevasse import api

    with _live(quiet) as live:
        found = api.landscape(trials, split=split, out=out, on_note=live.note)
    if as_json:
        _print_json(found)
        return
    from crevasse.terminal import print_landscape

    print_landscape(found, out or api.landscape_folder([p["trial"] for p in found["points"]]))


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@_json
def report(folder: Path, as_json: bool) -> None:
    """Build index.html anew from the evidence in a study's folder."""
    from crevasse.report import build_report

    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    path = build_report(folder)
    if as_json:
        _print_json({"report": str(path)})
    else:
        click.echo(str(path))


@cli.command()
@click.argument("task")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT…")
@click.option("--format", "form", default="direct", metavar="direct|trace", show_default=True)
@_json
def solve(task: str, inputs: tuple[str, ...], form: str, as_json: bool) -> None:
    """The exact answer (crevasse solve factorial 23), and with --format trace the steps."""
    from crevasse import api

    if form not in ("direct", "trace"):
        raise unknown("format of solve", form, ("direct", "trace"))
    solved = api.solve(task, list(inputs))
    if form == "trace" and solved["trace"] is None:
        raise UserError(f"{solved['task']} has no trace")
    if as_json:
        _print_json(solved)
        return
    for state in solved["trace"] if form == "trace" else ():
        click.echo(_joined(state))
    click.echo(_joined(solved["answer"]))


@cli.command(context_settings={"ignore_unknown_options": True})  # -1=3 is an example, if no good one
@click.argument("examples", nargs=-1, required=True, metavar="EXAMPLE…")
@click.option("--seconds", type=float, default=20.0, show_default=True, help="Most time to search.")
@click.option("--consolidate", is_flag=True, help="Train a network on what the shortest program imagines.")
@_out("crevasse-out/teach-EXAMPLES")
@_json
@_quiet
def teach(
    examples: tuple[str, ...], seconds: float, consolidate: bool, out: Path | None, as_json: bool, quiet: bool
) -> None:
    """What one to five examples teach (crevasse teach 1=1 3=6 5=120): the shortest such programs, and a page."""
    from crevasse import api

    for word in examples:
        if word.startswith("--"):
            raise click.NoSuchOption(word)
    with _live(quiet or not consolidate) as live:
        lesson = api.teach(examples, seconds, consolidate=consolidate, out=out, on_progress=live.progress)
    if as_json:
        _print_json(lesson)
        return
    from crevasse.terminal import print_lesson

    print_lesson(lesson, out or api.teach_folder(examples))


def _list_command(name: str, where: str, kind: str) -> None:
    """`crevasse tasks` and its like: what there is, a line each; with a name, its options."""

    @cli.command(name, help=f"List the {name}; with a NAME, its options.")
    @click.argument("name", required=False)
    @_json
    def listing(name: str | None, as_json: bool) -> None:
        import importlib
        import inspect

        module, _, attribute = where.partition(":")
        table: Table[Any] = getattr(importlib.import_module(module), attribute)
        if name is not None:
            from crevasse.terminal import option_lines

            lines, about = option_lines(table, name), inspect.cleandoc(table.cls(name).__doc__ or "")
            if as_json:
                options = [dict(zip(("name", "default", "what"), x, strict=True)) for x in lines]
                _print_json({kind: name, "about": about, "options": options})
                return
            click.echo(f"{name}: {table[name].summary}")
            for option, default, what in lines:
                click.echo(f"  {option}={default}  {what}".rstrip())
            if about:
                click.echo(f"\n{about}")
            return
        if as_json:
            _print_json(
                {where.partition(":")[2].lower(): [{"name": n, "summary": e.summary} for n, e in table.items()]}
            )
            return
        width = max(map(len, table))
        for n, entry in table.items():
            click.echo(f"{n:<{width}}  {entry.summary}")


for _name, _where, _kind in (
    ("tasks", "crevasse.tasks:TASKS", "task"),
    ("formats", "crevasse.formats:FORMATS", "format"),
    ("models", "crevasse.models:MODELS", "model"),
    ("rules", "crevasse.rules:RULES", "rule"),
    ("studies", "crevasse.studies:STUDIES", "study"),
):
    _list_command(_name, _where, _kind)


@cli.command("models pull")
@click.argument("name", required=False, metavar="NAME")
@_json
@_quiet
def models_pull(name: str | None, as_json: bool, quiet: bool) -> None:
    """Fetch a pretrained model's weights, once: from then on it needs no network."""
    from crevasse.models import hub

    if name is None:
        raise UserError(f"models pull needs a name (there are: {', '.join(hub.PULLS)})")
    folder = hub.pull(name, None if quiet else lambda line: click.echo(f"{name}: {line}", err=True))
    pulled = hub.PULLS[name]
    if as_json:
        _print_json({"name": name, "folder": str(folder), "about": pulled.about, "sha256": pulled.sha256})
        return
    size = sum(file.stat().st_size for file in folder.iterdir())
    click.echo(f"{name}: {pulled.about}")
    click.echo(f"  from    {pulled.file} of the Python package {pulled.package} {pulled.version}")
    click.echo(f"  SHA-256 {pulled.sha256}, checked")
    click.echo(f"  folder  {folder} ({size / 1e6:.0f} MB)")


def _with_options(task: str, options: tuple[str, ...]) -> str:
    """``("iterated-product", ("T=1-6",))`` -> ``iterated-product:T=1-6``."""
    for option in options:
        if "=" not in option:
            raise UserError(f"{option!r} is not of the form option=value (options of a task: crevasse tasks NAME)")
    if not options:
        return task
    return f"{task}{',' if ':' in task else ':'}{','.join(options)}"


def _joined(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _scores(record: dict[str, Any]) -> dict[str, Any]:
    result = record.get("result") or {}
    return {k: result.get(k) for k in ("train", "splits", "lockstep", "s_max", "steps", "seconds")}


def _differences(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Fields in which the configs differ, with each trial's value; nested fields by their dotted names."""
    flat = [dict(_flat(r["config"])) for r in records]
    names = dict.fromkeys(n for f in flat for n in f)
    return {n: [f.get(n) for f in flat] for n in names if len({json.dumps(f.get(n)) for f in flat}) > 1}


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@contextlib.contextmanager
def _live(quiet: bool) -> "Iterator[Any]":
    from crevasse.terminal import Live

    with Live(quiet) as live:
        yield live


def _print_json(data: Any) -> None:
    click.echo(json.dumps(data, ensure_ascii=False, allow_nan=False))


def _terminate(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGTERM, _terminate)
    if not is_first():  # of several processes that train together, one speaks
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        code = cli.main(prog_name="crevasse", standalone_mode=False)
    except UserError as e:
        click.echo(f"crevasse: {e}", err=True)
        code = BAD_INPUT
    except click.exceptions.NoArgsIsHelpError as e:
        click.echo(e.ctx.get_help() if e.ctx else "", err=True)
        code = BAD_INPUT
    except click.ClickException as e:
        click.echo(f"crevasse: {' '.join(e.format_message().split())}", err=True)
        code = BAD_INPUT
    except (KeyboardInterrupt, click.Abort):
        click.echo("crevasse: interrupted; the same command goes on from here", err=True)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone: `crevasse ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    sys.exit(code if isinstance(code, int) else DONE)


if __name__ == "__main__":
    main()
