"""The user's own problems: a CSV or JSONL file of problem, answer, optional trace, optional split."""

import csv
import functools
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from crevasse.errors import UserError
from crevasse.spec import Sizes
from crevasse.tasks.base import Facts, Input, Ints, Solution, Task

COLUMNS = ("problem", "answer", "trace", "split")
#: What the split column may say, and the number under which `splits` knows it.
SPLIT_NAMES = {
    "validation": 0, "train": 2, "test": 3, "random": 3, "interpolation": 4, "extrapolation": 5,
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """What stands in a file of pairs."""

    problems: NDArray[np.object_]  # (row,) text
    answers: NDArray[np.object_]
    traces: NDArray[np.object_] | None
    splits: NDArray[np.int64] | None
    keys: NDArray[np.int64]  # (row,) the same for the same problem


@dataclass(frozen=True)
class Pairs(Task):
    """Pairs of problem and answer from a file (columns problem, answer; optional trace, split)."""

    name: ClassVar[str] = "pairs"
    facts: ClassVar[Facts] = Facts(recursive=False, closed_form="not known", depth="not known", control="none")
    symmetries: ClassVar[str | None] = None
    splits: ClassVar[str] = "R"
    bare: ClassVar[str | None] = "file"

    file: str  # path of a .csv, .jsonl or .ndjson file
    digest: str = ""  # SHA-256 of the file; filled in, so that a changed file is another task

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self.file, self.digest))

    @property
    def kind(self) -> Literal["residue", "number", "text"]:
        return "text"

    @property
    def table(self) -> Table:
        return _read(self.file, self.digest)

    @property
    def declared(self) -> NDArray[np.int64] | None:
        """The file's own splits, row by row, or None."""
        return self.table.splits

    @property
    def train_sizes(self) -> Sizes:
        return Sizes((1,))

    def size(self, x: Ints) -> Ints:
        return np.ones(len(x), np.int64)

    @property
    def inputs(self) -> tuple[Input, ...]:
        return (Input("row", range(len(self.table.problems))),)

    def count(self, sizes: Sizes) -> int:
        return 0  # always listed

    def every(self, sizes: Sizes) -> Ints:
        return np.arange(len(self.table.problems))[:, None]

    def canonical(self, x: Ints) -> Ints:
        return self.table.keys[x]

    @property
    def answer_count(self) -> int | None:
        return None

    def texts(self, x: Ints) -> NDArray[np.object_]:
        """The problems as they stand in the file. (problem,)"""
        return self.table.problems[x[:, 0].astype(np.int64)]

    def find(self, text: str) -> Ints:
        """The problem with this text. (1, 1) Raises UserError if the file has none."""
        rows = np.flatnonzero(self.table.problems == text)
        if not len(rows):
            raise UserError(f"{text!r} is no problem of {self.file}")
        return rows[:1, None]

    def solve(self, x: Ints, rounded: bool = False) -> Solution:
        rows, table = x[:, 0].astype(np.int64), self.table
        states = None if table.traces is None else table.traces[rows][:, None, None]
        return Solution(table.answers[rows][:, None], states, None)


def _digest(file: str, expected: str = "") -> str:
    """SHA-256 of a file. Raises UserError where it cannot be read or is not the expected one."""
    if not os.path.isfile(file):
        raise UserError(f"{file}: {'is a folder' if os.path.isdir(file) else 'no such file'}")
    try:
        with open(file, "rb") as f:
            found = hashlib.file_digest(f, "sha256").hexdigest()
    except OSError as e:
        raise UserError(f"{file}: cannot be read ({e.strerror})") from None
    if expected and expected != found:
        raise UserError(f"{file} has changed since this trial was made (its SHA-256 is another one)")
    return found


@functools.lru_cache(maxsize=4)
def _read(file: str, digest: str) -> Table:
    """Read a file row by row; the first thing that is wrong with it is a UserError with its line number."""
    _digest(file, digest)
    problems: list[str] = []
    answers: list[str] = []
    traces: list[str] = []
    splits: list[int] = []
    keys: list[int] = []
    lines: dict[int, tuple[int, int]] = {}  # key -> line and split of its first appearance
    repeated: list[str] = []
    fields: tuple[str, ...] = ()
    for line, row in _rows(Path(file)):
        fields = fields or tuple(row)
        split = SPLIT_NAMES.get(row["split"].strip().lower()) if "split" in row else 2
        if split is None:
            raise UserError(f"{file}, line {line}: split {row['split']!r} is none of {', '.join(SPLIT_NAMES)}")
        problem = row["problem"]
        key = int.from_bytes(hashlib.blake2b(problem.strip().encode(), digest_size=8).digest(), "big", signed=True)
        first, its_split = lines.setdefault(key, (line, split))
        if its_split != split:
            repeated.append(f"{problem!r} (lines {first} and {line})")
        problems.append(problem)
        answers.append(row["answer"])
        keys.append(key)
        if "trace" in row:
            traces.append(row["trace"])
        if "split" in row:
            splits.append(split)
    if not problems:
        raise UserError(f"{file} is empty: it needs at least one row with problem and answer")
    if repeated:
        shown = "; ".join(repeated[:5]) + (f" and {len(repeated) - 5} more" if len(repeated) > 5 else "")
        raise UserError(f"{file}: the same problem stands in two splits: {shown}")
    return Table(
        np.array(problems, dtype=object),
        np.array(answers, dtype=object),
        np.array(traces, dtype=object) if "trace" in fields else None,
        np.array(splits) if "split" in fields else None,
        np.array(keys, dtype=np.int64),
    )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, row) of a file, every row with the same columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            yield from _jsonl(path, f) if path.suffix.lower() in (".jsonl", ".ndjson") else _csv(path, f)
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text ({_undecodable(path)}); save it as UTF-8") from None
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from None


def _undecodable(path: Path) -> str:
    """Where a file stops being UTF-8. No character of UTF-8 reaches over the end of a line."""
    with path.open("rb") as f:
        for number, line in enumerate(f, 1):
            try:
                line.decode()
            except UnicodeDecodeError as e:
                return f"line {number}: {e.reason}"
    return "it is changing"


def _csv(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, str]]]:
    opened = 0  # the line of a quote that is not closed yet, in the row that is being read

    def watched() -> Iterator[str]:
        nonlocal opened
        for number, line in enumerate(lines, 1):
            if line.count('"') % 2:
                opened = 0 if opened else number
            yield line

    reader = csv.reader(watched(), strict=True)
    try:
        head = [h.strip().lower() for h in next(filter(None, reader), [])]
        first = f"{path}, line {reader.line_num}"
        if not head:
            return
        if len(head) < 2:
            raise UserError(f"{first}: there is one column; a pairs file needs problem and answer")
        if "problem" not in head or "answer" not in head:
            raise UserError(f"{first}: the columns are {', '.join(head)}; needed: problem, answer")
        _known_columns(first, head)
        for row in reader:
            opened = 0
            if not row:
                continue
            if len(row) != len(head):
                raise UserError(
                    f"{path}, line {reader.line_num}: {len(row)} fields where there are {len(head)} columns"
                )
            yield (
                reader.line_num,
                _checked(f"{path}, line {reader.line_num}", dict(zip(head, row, strict=True))),
            )
    except csv.Error as e:
        reason = f"a quote opens here and is not closed ({e})" if opened else str(e)
        raise UserError(f"{path}, line {opened or reader.line_num}: {reason}") from None


def _jsonl(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, dict[str, str]]]:
    columns: set[str] = set()
    for number, line in enumerate(lines, 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)  # as they are written
        except (json.JSONDecodeError, RecursionError) as e:
            reason = e.msg if isinstance(e, json.JSONDecodeError) else "nested too deeply"
            raise UserError(f"{where}: not JSON ({reason})") from None
        if not isinstance(row, dict) or not {"problem", "answer"} <= set(row):
            raise UserError(f"{where}: must be an object with problem and answer")
        _known_columns(where, list(row))
        columns = columns or set(row)
        if set(row) != columns:
            raise UserError(
                f"{where}: has {', '.join(sorted(row))}; the lines before have {', '.join(sorted(columns))}"
            )
        bad = [k for k, v in row.items() if not isinstance(v, str)]
        if bad:
            raise UserError(f"{where}: {bad[0]} must be text or a number")
        yield number, _checked(where, row)


def _known_columns(where: str, names: list[str]) -> None:
    for name in names:
        if name not in COLUMNS or names.count(name) > 1:
            raise UserError(f"{where}: column {name!r} is {'repeated' if name in COLUMNS else 'none'} of {COLUMNS}")


def _checked(where: str, row: dict[str, str]) -> dict[str, str]:
    for name in ("problem", "answer"):
        if not row[name].strip():
            raise UserError(f"{where}: {name} is empty")
    for name, text in row.items():
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            raise UserError(f"{where}: {name} has half a character (a surrogate without its other half)")
    return row
