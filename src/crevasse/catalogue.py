"""Many trials at once: a catalogue of a store, filtered with SQL, and the loss curves of many ledgers in one query.

The catalogue is a cache beside the trials, one row each. It may be deleted at any time: what is new or changed since
is read again, and where it cannot be written every trial is read each time.
"""

import glob
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crevasse import store
from crevasse.errors import UserError, unknown

INDEX = "catalogue.parquet"
SPLITS = ("random", "interpolation", "extrapolation")
_TEXTS = ("folder", "id", "status", "describe", "task", "format", "model", "rule", "labels")
_FROM_CONFIG = ("steps", "batch", "seed")
_NUMBERS = ("train", *SPLITS, "lockstep", "s_max", "memorising", "passes", "seconds")
#: Stands in the file where its checksum goes: a flipped bit in Parquet's own bookkeeping can give other numbers.
_NO_SEAL = "0" * 64
SCHEMA = pa.schema(
    [(n, pa.string()) for n in _TEXTS]
    + [(n, pa.int64()) for n in ("train_examples", *_FROM_CONFIG, "steps_taken", "samples")]
    + [(n, pa.float64()) for n in _NUMBERS]
    + [("learned", pa.bool_()), ("mtime_ns", pa.int64()), ("size", pa.int64())],
    # The format is raised when the same columns come to mean something else.
    metadata={"crevasse.catalogue": "1", "seal": _NO_SEAL},
)
COLUMNS: tuple[str, ...] = tuple(SCHEMA.names)

_State = tuple[int, int]  # mtime_ns and size of a trial.json: another one, another content


def read_catalogue(root: Path) -> tuple[pa.Table, list[str]]:
    """A row a trial, as SCHEMA says, in the order of the folders (relative to root); and a line a damaged trial."""
    files = dict(_scan(root))
    old = _read_index(root / INDEX)
    known = zip(*(old[n].to_pylist() for n in ("folder", "mtime_ns", "size")), strict=True)
    kept = {folder: i for i, (folder, *state) in enumerate(known) if files.get(folder) == tuple(state)}
    rows, damaged = [], []
    for folder in sorted(files.keys() - kept.keys()):
        try:
            rows.append(_row(root / folder, folder, files[folder]))
        except UserError as e:
            damaged.append(str(e))
    new = _table(root, rows, damaged)
    if len(kept) == len(old) and not len(new):
        return old, damaged
    table = pa.concat_tables([old.take(pa.array(kept.values(), pa.int64())), new])
    folders = table["folder"].to_pylist()
    order = sorted(range(len(table)), key=lambda i: folders[i].split("/"))
    table = table.take(pa.array(order, pa.int64()))
    if "." not in files:  # a trial's own folder holds what belongs to the trial, and nothing else
        _write_index(root / INDEX, table)
    return table, damaged


def _scan(root: Path) -> Iterator[tuple[str, _State]]:
    """Trial folders as `store.trial_folders` finds them, relative to root, with the state of their trial.json."""

    def state(folder: str) -> _State | None:
        with suppress(OSError):
            found = os.stat(f"{root}/{folder}/{store.TRIAL}")
            return found.st_mtime_ns, found.st_size
        return None

    def folders(below: str) -> list[str]:
        with suppress(OSError), os.scandir(f"{root}/{below}") as entries:
            return [f"{below}{e.name}" for e in entries if e.is_dir()]
        return []

    if (only := state(".")) is not None:
        yield ".", only
        return
    for folder in folders(""):
        # A trial has no trials in it: not looking for them halves the work in a folder of ten thousand.
        found = state(folder)
        inside = [] if found else folders(f"{folder}/") if folder == "trials" else folders(f"{folder}/trials/")
        for name, its in ((folder, found), *((f, state(f)) for f in inside)):
            if its is not None:
                yield name, its


def _row(path: Path, folder: str, state: _State) -> dict[str, Any]:
    """A trial as a row. Raises UserError if trial.json is damaged; what has the wrong type is left to `_table`."""
    record = store.load_trial(path, verify=False)
    try:
        config, result = record["config"], record.get("result") or {}
        splits, describe = result.get("splits") or {}, record["describe"]
        row = {
            "folder": folder, "id": record["id"], "status": record["status"], "describe": describe,
            **_short_texts(describe, config), "labels": config.get("labels"),
            "train_examples": (result.get("examples") or {}).get("train", config.get("train")),
            **{n: config.get(n) for n in _FROM_CONFIG},
            "steps_taken": result.get("steps"), "samples": result.get("samples"),
            **{n: result.get(n) for n in _NUMBERS}, **{n: splits.get(n) for n in SPLITS},
            "learned": result.get("learned"), "mtime_ns": state[0], "size": state[1],
        }  # fmt: skip
        whole = all(isinstance(row[n], str) for n in ("id", "status", "describe"))
        if whole and all(math.isfinite(row[n]) for n in _NUMBERS if row[n] is not None):
            return row
    except (AttributeError, KeyError, TypeError, OverflowError):
        pass
    raise _damage(path)


def _damage(path: Path) -> UserError:
    return UserError(f"{path / store.TRIAL} is damaged; remove {path} to run it again")


def _short_texts(describe: str, config: dict[str, Any]) -> dict[str, Any]:
    """Task, format, model and rule as a person types them. They stand in `describe`; no class need be imported."""
    names = ("task", "format", "model", "rule")
    texts: list[Any] = describe.rsplit(" · ", 6)
    if len(texts) != 7:
        texts = [(config.get(n) or {}).get("name") for n in names]
    elif "labels" in config:
        texts[3] = texts[3].partition(f" {config['labels']} labels")[0]
    return dict(zip(names, texts[:4], strict=True))


def _table(root: Path, rows: list[dict[str, Any]], damaged: list[str]) -> pa.Table:
    """Rows as a table. Those that do not fit SCHEMA are damaged, and found by halving: they are rare."""
    try:
        return pa.Table.from_pylist(rows, schema=SCHEMA)
    except (TypeError, ValueError, OverflowError, pa.ArrowException):
        if len(rows) == 1:
            damaged.append(str(_damage(root / rows[0]["folder"])))
            return SCHEMA.empty_table()
        half = len(rows) // 2
        return pa.concat_tables([_table(root, rows[:half], damaged), _table(root, rows[half:], damaged)])


def _read_index(path: Path) -> pa.Table:
    """The table that was written last; an empty one if there is none, or if it is damaged or of another format."""
    with suppress(OSError, ValueError, KeyError, pa.ArrowException):
        data = path.read_bytes()
        seal = (pq.read_metadata(pa.BufferReader(data)).metadata or {})[b"seal"]
        if _seal(data.replace(seal, _NO_SEAL.encode())) == seal:
            table = pq.read_table(pa.BufferReader(data))
            table = table.replace_schema_metadata({**table.schema.metadata, b"seal": _NO_SEAL})
            if table.schema.equals(SCHEMA, check_metadata=True):
                return table
    return SCHEMA.empty_table()


def _seal(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _write_index(path: Path, table: pa.Table) -> None:
    """The whole file or nothing of it. A folder that cannot be written to is no error: it has no catalogue."""
    temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")  # others may write it at the same time
    try:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        data = sink.getvalue().to_pybytes()
        temporary.write_bytes(data.replace(_NO_SEAL.encode(), _seal(data)))
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()


def select(table: pa.Table, where: str | None = None, sort: str | None = None, limit: int | None = None) -> pa.Table:
    """The trials for which a SQL expression over COLUMNS holds, sorted by a column (``-column``: highest first).

    What has no value comes last. Raises UserError for an expression that cannot be read, and for one that wants more
    than the catalogue: no files, no settings, no statements of its own.
    """
    if where is not None or sort is not None:
        order = ""
        if sort is not None:
            column = sort.removeprefix("-")
            if column not in COLUMNS:
                raise unknown("column", column, COLUMNS)
            order = f' ORDER BY "{column}" {"DESC" if column != sort else "ASC"} NULLS LAST, folder'
        places = {folder: i for i, folder in enumerate(table["folder"].to_pylist())}
        found = _folders(table, "true" if where is None else where, order)
        table = table.take(pa.array([places[f] for f in found], pa.int64()))
    return table if limit is None else table.slice(0, limit)


def _folders(table: pa.Table, where: str, order: str) -> list[str]:
    import duckdb

    with duckdb.connect(config={"enable_external_access": "false", "lock_configuration": "true"}) as database:
        database.register("catalogue", table)
        query = f"SELECT folder FROM catalogue WHERE (\n{where}\n){order}"
        try:
            query.encode()  # bytes in a shell's argument that are no text
            # What is one statement here and in a list as well is an expression: text that closes the bracket to
            # begin something else (`1=1) UNION …`, `1=1); DROP …`) fits one place or the other, never both.
            for text in (query, f"SELECT [(\n{where}\n)]"):
                if len(database.extract_statements(text)) != 1:
                    raise ValueError("it is more than one expression")
            return [folder for (folder,) in database.execute(query).fetchall()]
        except (duckdb.Error, ValueError, RuntimeError) as e:
            reason = str(e).partition("\n")[0].rstrip("!")
            names = ", ".join('"describe"' if n == "describe" else n for n in COLUMNS)  # a word of SQL
            raise UserError(f"--where {where!r} cannot be used: {reason} (columns: {names})") from None


#: Name in the evidence -> column of the ledger.
CURVES = {
    "curve_step": "step", "curve_train": "train_loss", "curve_held_out": "held_out_loss",
    "curve_train_exact": "train_exact", "curve_held_out_exact": "held_out_exact", "curve_passes": "passes",
    "curve_samples": "samples",
}  # fmt: skip


def read_curves(folders: Sequence[Path]) -> list[dict[str, list[Any]]]:
    """The curves of many trials at the steps at which both losses were read, by one query over their ledgers.

    -> for each folder the lists CURVES names; a value that was not read is not a number. Raises UserError for a missing
    or damaged ledger.
    """
    import duckdb

    paths = [str((folder / store.LEDGER).absolute()) for folder in folders]
    if not paths:
        return []
    ledgers = "read_parquet(?, filename = true, union_by_name = true, hive_partitioning = false)"
    # The same trial may stand in two arms. A folder's name may hold what a pattern is made of.
    files = [[glob.escape(p) for p in dict.fromkeys(paths)]]
    try:
        database = duckdb.connect()
        there = database.execute(f"SELECT * FROM {ledgers} LIMIT 0", files).description or []
        known = {name for name, *_ in there}  # ledgers of before lack some
        columns = ", ".join(
            "list(step ORDER BY step)"
            if name == "step"
            else f"list(coalesce({name if name in known else 'NULL'}, 'nan'::DOUBLE) ORDER BY step)"
            for name in CURVES.values()
        )
        found = database.execute(
            f"SELECT filename, {columns} FROM {ledgers} WHERE train_loss IS NOT NULL GROUP BY filename", files
        ).fetchall()
    except duckdb.Error as e:
        for folder in folders:
            store.read_columns(folder / store.LEDGER)  # says which one
        raise UserError(f"the ledgers cannot be read: {e}") from None
    curves = {path: lists for path, *lists in found}
    return [dict(zip(CURVES, curves.get(path, [[] for _ in CURVES]), strict=True)) for path in paths]
