"""What a study measures besides its trials: a long table, one number a row."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from crevasse import store
from crevasse.errors import UserError

MEASURES = "measures.parquet"


class Measure(TypedDict):
    """One number, and what it is of."""

    claim: str  # or another part of the study
    version: int  # of what measured it
    series: str
    label: str
    seed: int | None
    x: float | None
    value: float | None


SCHEMA = pa.schema(
    [("claim", pa.string()), ("version", pa.int64()), ("series", pa.string()), ("label", pa.string()),
     ("seed", pa.int64()), ("x", pa.float64()), ("value", pa.float64())]
)  # fmt: skip


def fingerprint(trials: Sequence[str]) -> str:
    """A hash of trials' ids, in any order."""
    return hashlib.sha256(" ".join(sorted(trials)).encode()).hexdigest()


def write_measures(path: Path, measures: Sequence[Measure], of: str = "") -> None:
    """One Parquet file, written atomically. of: `fingerprint` of the trials beside which they were measured."""
    sink = pa.BufferOutputStream()
    schema = SCHEMA.with_metadata({"trials": of})
    pq.write_table(pa.Table.from_pylist([dict(m) for m in measures], schema=schema), sink, compression="zstd")
    store.write_atomically(path, sink.getvalue().to_pybytes())


def read_measures(path: Path, of: str = "") -> list[Measure]:
    """The inverse of `write_measures`; nothing where there is no such file, as with studies that measure nothing.

    Raises UserError for a file that is damaged or something else, or was measured beside other trials.
    """
    if not path.exists():
        return []
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        raise UserError(f"{path} is damaged; run the study again (what it has already run is kept)") from None
    if missing := set(SCHEMA.names) - set(table.column_names):
        raise UserError(f"{path} is not what a study measured (it lacks {', '.join(sorted(missing))})")
    if (table.schema.metadata or {}).get(b"trials", b"").decode() != of:
        raise UserError(f"{path} was measured on other trials; run the study again (what it has already run is kept)")
    rows: list[Measure] = table.select(SCHEMA.names).to_pylist()
    return rows


def kept(out: Path, name: str, made_of: Sequence[Any], measure: Callable[[], list[Measure]]) -> list[Measure]:
    """A part of what a study measures, from `out`/measured if it is there already, else measured and kept there.

    made_of: all that decides what is measured, as JSON takes it. What is damaged is measured again.
    """
    told = json.dumps([name, *made_of])
    path = out / "measured" / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:12]}.parquet"
    with suppress(UserError):
        if path.exists():
            return read_measures(path)
    found = measure()
    path.parent.mkdir(exist_ok=True)
    write_measures(path, found)
    return found
