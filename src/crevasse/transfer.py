"""Trials that move between machines: checked in full, and merged so that nothing gives way to something lesser."""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crevasse import store
from crevasse.errors import UserError


def check(folder: Path) -> dict[str, Any]:
    """What trial.json says, once all that can be checked holds. Raises UserError that says what to do.

    The id is the hash of revision and config, every file has its checksum, and a checkpoint can be read.
    """
    record = store.load_trial(folder, verify=False)
    store.require_seal(folder, record)
    damage = UserError(f"{folder / store.TRIAL} is damaged; remove {folder} to run it again")
    status, files, config = record["status"], record.get("files"), record["config"]
    complete = status in store.COMPLETE
    if not isinstance(files, dict) or not isinstance(config, dict) or not (complete or status == "running"):
        raise damage
    if complete != isinstance(record.get("result"), dict) or complete != bool(files):
        raise damage
    if complete and not {store.LEDGER, store.WEIGHTS, store.CLOCK} <= set(files):
        raise damage
    if not all(re.fullmatch(r"[\w.-]+", name) for name in files):  # a path that leads elsewhere
        raise damage
    if record["id"] != _id(record):
        raise UserError(f"{folder / store.TRIAL} is damaged (its id is not that of its config); remove {folder}")
    if folder.absolute().parent.name == "trials" and folder.absolute().name != record["id"]:
        raise UserError(f"{folder} holds the trial {record['id']}: give it that name, or remove it")
    for name, expected in files.items():
        store.verify_file(folder / name, expected)
    if not complete:
        _checkpoint_step(folder, record["id"])
    return record


def _id(record: dict[str, Any]) -> str | None:
    """`TrialConfig.id` from what is on disk: it needs no code that still reads the config, and none of its files."""
    with suppress(ValueError):  # text that is no Unicode
        text = json.dumps([record.get("revision"), record["config"]], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
    return None


def _checkpoint_step(folder: Path, trial: str) -> int:
    """Steps that a checkpoint has behind it; -1 without one. Raises UserError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    path = folder / store.CHECKPOINT
    if not path.exists():
        return -1
    with suppress(SafetensorError, OSError, KeyError, ValueError), safe_open(path, "np") as f:
        meta: dict[str, str] = f.metadata() or {}
        if meta["id"] == trial:
            return int(meta["step"])
    raise UserError(f"{path} is damaged; remove {folder} to run it again")


@dataclass
class Verified:
    """What `verify` found."""

    trials: int = 0
    verified: int = 0  # complete and as they were written
    running: int = 0  # unfinished, and fit to go on
    damaged: list[str] = field(default_factory=list)  # a line each, with what to do
    older: list[str] = field(default_factory=list)  # as they were written, by a version that gave other numbers


def verify(folders: Sequence[Path], revision: int) -> Verified:
    """Check trials in full. revision: of the configs that this version runs (`config.REVISION`)."""
    found = Verified(trials=len(folders))
    for folder in folders:
        try:
            record = check(folder)
        except UserError as e:
            found.damaged.append(str(e))
            continue
        complete = record["status"] in store.COMPLETE
        found.verified += complete
        found.running += not complete
        if record.get("revision") != revision:
            found.older.append(f"{folder} was run at revision {record['revision']}; this version runs {revision} anew")
    return found


@dataclass
class Merged:
    """What `merge` did, trial by trial."""

    copied: list[str] = field(default_factory=list)  # ids of complete trials
    checkpoints: list[str] = field(default_factory=list)  # ids of unfinished ones, which are further now
    kept: int = 0  # trials that were there and as far, and unfinished ones that have no checkpoint yet
    differs: list[str] = field(default_factory=list)  # a line each: complete in both, with other weights
    damaged: list[str] = field(default_factory=list)  # a line each
    in_use: list[str] = field(default_factory=list)  # a line each: another process works on it


def merge(sources: Sequence[Path], out: Path) -> Merged:
    """Copy into `out` what it lacks: complete trials, and for unfinished ones the further checkpoint.

    A trial keeps its place: those of ``source/STUDY/trials`` go to ``out/STUDY/trials``. Raises UserError, before
    anything is written, for a source that is missing or shares folders with `out`; later for a full disk.
    """
    for source in sources:
        if not source.is_dir():
            raise UserError(f"{source}: no such folder")
        a, b = source.resolve(), out.resolve()
        if a == b or a in b.parents or b in a.parents:
            raise UserError(f"{source} cannot be merged into {out}: it is the same folder, or one lies in the other")
    store.make_folder(out)
    merged = Merged()
    for source in sources:
        for folder in store.trial_folders(source):
            try:
                record = check(folder)
            except UserError as e:
                merged.damaged.append(str(e))
                continue
            study = folder.relative_to(source).parts[:-2]
            target = out.joinpath(*study, "trials", record["id"])
            with ExitStack() as stack:
                try:
                    stack.enter_context(store.owned(target))
                except UserError as e:
                    merged.in_use.append(str(e))
                    continue
                _merge_trial(folder, record, target, merged)
    return merged


def _merge_trial(source: Path, record: dict[str, Any], target: Path, merged: Merged) -> None:
    """One trial that has been checked, into a folder that is owned. trial.json goes last, as in `trial`: whatever
    moment the process is killed at, what it says is true.
    """
    trial, complete = record["id"], record["status"] in store.COMPLETE
    held = None
    try:
        held = check(target) if (target / store.TRIAL).exists() else None
        here = _checkpoint_step(target, trial)
    except UserError as e:
        if not complete:  # it gives way to what is complete only
            merged.damaged.append(str(e))
            return
    if held is not None and held["status"] in store.COMPLETE:
        if complete and held["files"][store.WEIGHTS] != record["files"][store.WEIGHTS]:
            merged.differs.append(f"{trial} differs: {target} is kept, its weights are not those in {source}")
        else:
            merged.kept += 1
    elif complete:
        for name in record["files"]:
            store.copy_atomically(source / name, target / name)
        store.write_json(target / store.TRIAL, record)
        store.remove_checkpoint(target)
        merged.copied.append(trial)
    elif (step := _checkpoint_step(source, trial)) > here or (held is None and step == here >= 0):
        store.copy_atomically(source / store.CHECKPOINT, target / store.CHECKPOINT)
        store.write_json(target / store.TRIAL, record)
        merged.checkpoints.append(trial)
    else:
        merged.kept += 1
