"""Trial folders: written atomically, checked when read, owned by one process at a time.

A folder holds ``trial.json`` (config, environment, status, result, checksums), ``ledger.parquet``,
``weights.safetensors``, ``clock.parquet`` (seconds at each probe: the one file that differs between equal runs)
and, while training goes on, ``checkpoint.safetensors``.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crevasse.errors import UserError

Columns = Mapping[str, NDArray[Any]]
TRIAL, LEDGER, WEIGHTS, CLOCK, CHECKPOINT = (
    "trial.json", "ledger.parquet", "weights.safetensors", "clock.parquet", "checkpoint.safetensors",
)  # fmt: skip
_TEMPORARY = ".writing-"
#: Statuses of a trial that has ended.
COMPLETE = ("done", "diverged")


def make_folder(path: Path) -> Path:
    """The folder, created if need be. Raises UserError where it cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f"{_TEMPORARY}{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as e:
        raise UserError(f"cannot write to {path}: {e.strerror}") from None
    return path


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Hold a folder for this process. The lock goes with the process, however it ends.

    Raises UserError if another process holds it.
    """
    make_folder(path)
    with (path / ".lock").open("a") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{path} is in use by another process: wait for it, or choose another --out") from None
        for left in path.glob(f"{_TEMPORARY}*"):
            left.unlink(missing_ok=True)
        try:
            yield
        finally:
            _forget_if_empty(path)


def _forget_if_empty(path: Path) -> None:
    """Leave no folder behind in which nothing was written (a trial whose data could not be made)."""
    if [p.name for p in path.iterdir()] == [".lock"]:
        (path / ".lock").unlink()
        for folder in (path, *list(path.parents)[:2]):  # the trial, its "trials", the root
            try:
                folder.rmdir()
            except OSError:
                return


def write_atomically(path: Path, data: bytes) -> None:
    """The whole file or nothing of it, on disk. Raises UserError where the disk is full or read-only."""
    temporary = path.with_name(f"{_TEMPORARY}{path.name}")
    try:
        with temporary.open("wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)
    except OSError as e:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {e.strerror}") from None


def copy_atomically(source: Path, target: Path) -> None:
    """A copy that is whole or not there, on disk. Raises UserError where it cannot be read or written."""
    temporary = target.with_name(f"{_TEMPORARY}{target.name}")
    try:
        with source.open("rb") as read, temporary.open("wb") as written:
            shutil.copyfileobj(read, written, 1 << 20)
            written.flush()
            os.fsync(written.fileno())
        temporary.replace(target)
    except OSError as e:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot copy {source} to {target}: {e.strerror}") from None


def write_json(path: Path, data: Any) -> None:
    """Readable JSON; NaN and infinity are not JSON and raise ValueError."""
    write_atomically(path, (json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Raises UserError for a file that is missing or damaged."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is damaged"
        raise UserError(f"{path} cannot be read ({reason}); remove {path.parent} to run it again") from None


def write_columns(path: Path, columns: Columns) -> None:
    """A Parquet file of equally long columns; NaN becomes null. The same columns give the same bytes."""
    arrays = {
        name: pa.array(values, mask=np.isnan(values) if values.dtype.kind == "f" else None)
        for name, values in columns.items()
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays), sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())


def read_columns(path: Path) -> dict[str, NDArray[Any]]:
    """The inverse of `write_columns`. Raises UserError for a file that is missing or damaged."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException):
        raise UserError(f"{path} is damaged; remove {path.parent} to run it again") from None
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def seal(record: dict[str, Any]) -> dict[str, Any]:
    """A trial's record with its own checksum: a digit changed on disk does not go unnoticed."""
    rest = {k: v for k, v in record.items() if k != "checksum"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=False)
    return {**rest, "checksum": hashlib.sha256(text.encode()).hexdigest()}


def require_seal(folder: Path, record: dict[str, Any]) -> None:
    """Raises UserError for a record that is not as it was written (older ones have no checksum)."""
    if "checksum" in record and seal(record) != record:
        raise UserError(f"{folder / TRIAL} is damaged (its checksum is wrong); remove {folder} to run it again")


def load_trial(folder: Path, verify: bool = True) -> dict[str, Any]:
    """What trial.json says. Raises UserError if it, or a file that it vouches for, is damaged."""
    record = read_json(folder / TRIAL)
    if not isinstance(record, dict) or not {"id", "config", "status"} <= set(record):
        raise UserError(f"{folder / TRIAL} is damaged; remove {folder} to run it again")
    if verify:
        require_seal(folder, record)
    for name, expected in record.get("files", {}).items() if verify else ():
        verify_file(folder / name, expected)
    return record


def verify_file(path: Path, expected: str) -> None:
    """Raises UserError unless the file of a trial is there and has the checksum that its trial vouches for."""
    try:
        right = digest(path) == expected
    except FileNotFoundError:
        raise UserError(f"{path} is missing; remove {path.parent} to run it again") from None
    except OSError as e:
        raise UserError(f"{path} cannot be read ({e.strerror})") from None
    if not right:
        raise UserError(f"{path} is damaged (its checksum is wrong); remove {path.parent} to run it again")


def trial_folders(root: Path) -> list[Path]:
    """All trial folders at or below a folder (up to the depth that a store has), in the order of their names."""
    if (root / TRIAL).exists():
        return [root]
    patterns = ("*", "trials/*", "*/trials/*")
    return sorted({p.parent for pattern in patterns for p in root.glob(f"{pattern}/{TRIAL}")})


def find_trial(name: str, root: Path) -> Path:
    """The folder of a trial, given as a path or as the beginning of an id. Raises UserError."""
    if (Path(name) / TRIAL).exists():
        return Path(name)
    folders = trial_folders(root) if root.is_dir() else []
    found = [p for p in folders if p.name.startswith(name)] if name else []
    # The same trial may lie in several places: a config is run once, its folder may be copied.
    if len({p.name for p in found}) > 1:
        raise UserError(f"{name!r} could be any of {', '.join(p.name for p in found[:8])}: write more of it")
    if not found:
        raise UserError(f"no trial {name!r} in {root} ({len(folders)} trials there; `crevasse ls` lists them)")
    return found[0]


def remove_checkpoint(folder: Path) -> None:
    """Called when a trial is complete."""
    (folder / CHECKPOINT).unlink(missing_ok=True)
