"""A store of many trials: listed, filtered, checked, copied, merged; and curves of many ledgers in one query."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crevasse import catalogue, store, transfer
from crevasse.catalogue import COLUMNS, CURVES, INDEX, read_catalogue, read_curves, select
from crevasse.config import REVISION
from crevasse.errors import UserError
from crevasse.studies.base import SCHEMA as EVIDENCE
from crevasse.trial import run_trial

SPLITS = ("random", "interpolation", "extrapolation")


def record(number, status="done", **over):
    """A trial.json such as a trial writes, with numbers of its own."""
    draw = np.random.default_rng(number)
    splits = {s: round(float(draw.random()), 3) for s in SPLITS if draw.random() < 0.7}
    result = {
        "train": round(float(draw.random()), 3), "splits": splits, "lockstep": float(draw.normal()), "s_max": 0.5,
        "learned": bool(draw.random() < 0.5), "memorising": 0.25, "steps": 60, "passes": 120.0, "samples": 640,
        "seconds": 1.5, "examples": {"train": 120}, "outputs": {"train": [{"problem": "1 + 2", "written": "…"}] * 9},
    }  # fmt: skip
    return {
        "id": f"{number:012x}", "revision": REVISION, "status": status,
        "describe": f"sum:n=2-4 · direct · bilinear:width=16 · adamw:lr=0.01 · 120 examples · 60 steps · seed {number}",
        "config": {"task": {"name": "sum"}, "train": 120, "labels": "true", "steps": 60, "batch": 32, "seed": number},
        "environment": {}, "result": None if status == "running" else result, "files": {},
    } | over  # fmt: skip


def write(root, number, **over):
    data = record(number, **over)
    folder = root / data["id"]
    folder.mkdir(parents=True, exist_ok=True)
    store.write_json(folder / "trial.json", data)
    return folder


@pytest.fixture
def root(tmp_path):
    """A store with trials at all places where trials may lie."""
    for number in range(12):
        write(tmp_path / ("trials", "study/trials", "a b·ü/trials", "")[number % 4], number)
    write(tmp_path / "trials", 12, status="running")
    write(tmp_path / "trials", 13, status="diverged", result={"train": None, "splits": {}, "steps": 3})
    return tmp_path


def by_hand(root):
    """What the catalogue must hold, from the files alone."""
    found = {}
    for path in sorted(root.rglob("trial.json")):
        data = json.loads(path.read_text("utf-8"))
        result = data["result"] or {}
        splits = result.get("splits", {})
        found[str(path.parent.relative_to(root))] = {
            "id": data["id"], "status": data["status"], "describe": data["describe"], "seed": data["config"]["seed"],
            "train": result.get("train"), **{s: splits.get(s) for s in SPLITS}, "lockstep": result.get("lockstep"),
            "learned": result.get("learned"), "steps": 60, "steps_taken": result.get("steps"), "train_examples": 120,
            "task": "sum:n=2-4", "format": "direct", "model": "bilinear:width=16", "rule": "adamw:lr=0.01",
            "labels": "true", "size": path.stat().st_size,
        }  # fmt: skip
    return found


def same_as_by_hand(root):
    table, damaged = read_catalogue(root)
    expected = by_hand(root)
    assert table.column_names == list(COLUMNS)
    assert damaged == []
    rows = {r["folder"]: r for r in table.to_pylist()}
    assert len(rows) == len(table)
    assert {f: {k: r[k] for k in expected.get(f, {})} for f, r in rows.items()} == expected
    assert [root / f for f in table["folder"].to_pylist()] == store.trial_folders(root), "the same order"
    return table


# --- the catalogue -----------------------------------------------------------------------------------------------


def test_a_row_a_trial_as_the_files_say(root):
    first = same_as_by_hand(root)
    assert (root / INDEX).exists()
    assert same_as_by_hand(root).equals(first)


def test_new_changed_and_removed_trials_are_noticed(root):
    same_as_by_hand(root)
    write(root / "trials", 100)
    write(root / "trials", 12)  # it was running
    shutil.rmtree(root / "trials" / f"{4:012x}")
    shutil.rmtree(root / "study")
    same_as_by_hand(root)
    shutil.copytree(root, root.with_name("copy"))
    same_as_by_hand(root.with_name("copy"))
    (root / INDEX).unlink()
    same_as_by_hand(root)


def test_only_what_is_new_or_changed_is_read(root, monkeypatch):
    read_catalogue(root)
    read, load = [], store.load_trial
    monkeypatch.setattr(store, "load_trial", lambda folder, verify: read.append(folder.name) or load(folder, verify))
    written = (root / INDEX).stat().st_mtime_ns
    read_catalogue(root)
    assert read == []
    assert (root / INDEX).stat().st_mtime_ns == written
    write(root / "trials", 100)
    write(root / "study" / "trials", 1, status="running")
    read_catalogue(root)
    assert sorted(read) == [f"{1:012x}", f"{100:012x}"]


def test_labels_are_no_part_of_the_rule(tmp_path):
    for number, labels in enumerate(("random labels", "noisy labels 0.25")):
        config = record(number)["config"] | {"labels": labels.split()[0]}
        describe = f"pairs:a · b.csv · direct · transformer · gaf:k=4 {labels} · all examples · 9 steps · seed 0"
        write(tmp_path, number, describe=describe, config=config)
    rows = read_catalogue(tmp_path)[0].to_pylist()
    assert {(r["task"], r["rule"]) for r in rows} == {("pairs:a · b.csv", "gaf:k=4")}
    assert {r["labels"] for r in rows} == {"random", "noisy"}


@pytest.mark.parametrize(
    "spoil",
    [
        b"", b"{", b"\xff\xfe", b"[]", b"null", b'{"id": "a"}', b"[" * 100_000, b"1" * 10_000,
        {"id": None}, {"describe": 5}, {"status": []}, {"config": 3}, {"result": "x"}, {"result": {"train": "x"}},
        {"result": {"train": 1e999}}, {"result": {"steps": 10**30}}, {"result": {"splits": [1]}},
        {"result": {"examples": 7}}, {"describe": "\ud800"}, {"result": {"learned": "yes"}},
    ],
)  # fmt: skip
def test_a_damaged_trial_is_told_in_a_line_that_says_what_to_do(root, spoil):
    folder = root / "trials" / f"{4:012x}"
    text = spoil if isinstance(spoil, bytes) else json.dumps(record(4) | spoil).encode()
    (folder / "trial.json").write_bytes(text)
    for _ in range(2):
        table, damaged = read_catalogue(root)
        assert len(table) == 13
        assert len(damaged) == 1
        assert str(folder) in damaged[0] and "remove" in damaged[0] and "\n" not in damaged[0]
    write(root / "trials", 4)
    same_as_by_hand(root)


def test_an_index_of_another_format_is_built_anew(root):
    table = same_as_by_hand(root)
    seed = table.column_names.index("seed")
    for other in (
        table,
        table.drop_columns(["seed"]),
        table.replace_schema_metadata(table.schema.metadata | {b"crevasse.catalogue": b"0"}),
        table.set_column(seed, "seed", table["seed"].cast(pa.string())),
    ):
        catalogue._write_index(root / INDEX, other)
        assert (len(catalogue._read_index(root / INDEX)) > 0) == (other is table)
        assert same_as_by_hand(root).equals(table)
    pq.write_table(table.set_column(seed, "seed", pa.array([7] * len(table))), root / INDEX)  # not by us
    assert same_as_by_hand(root).equals(table)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_index_is_built_anew(root, where, bits, cut):
    (root / INDEX).unlink(missing_ok=True)
    read_catalogue(root)
    data = bytearray((root / INDEX).read_bytes())
    place = int(where * len(data))
    data[place] ^= bits
    (root / INDEX).write_bytes(data[:place] if cut else data)
    same_as_by_hand(root)


def test_where_it_cannot_be_written_there_is_no_index(root):
    (root / INDEX).mkdir()
    same_as_by_hand(root)
    same_as_by_hand(root)
    assert not list(root.glob(".writing*"))
    (root / INDEX).rmdir()
    if os.geteuid() != 0:
        root.chmod(0o500)
        same_as_by_hand(root)
        assert not (root / INDEX).exists()
        root.chmod(0o700)


def test_a_folder_without_trials_and_a_trial_itself_get_no_index(tmp_path):
    (tmp_path / "empty").mkdir()
    assert len(read_catalogue(tmp_path / "empty")[0]) == 0
    folder = write(tmp_path, 1)
    table, _ = read_catalogue(folder)
    assert table["folder"].to_pylist() == ["."]
    assert not list(tmp_path.rglob(INDEX))


# --- filters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ("train >= .5 and random < .7", lambda r: (r["train"] or 0) >= 0.5 and (r["random"] or 1) < 0.7),
        ("status = 'running'", lambda r: r["status"] == "running"),
        ("learned", lambda r: r["learned"]),
        ("interpolation is null", lambda r: r["interpolation"] is None),
        ("\"describe\" like '%seed 3'", lambda r: r["describe"].endswith("seed 3")),
        ("format = 'direct' and seed in (1, 2, 3)", lambda r: r["seed"] in (1, 2, 3)),
        ("seed = 1) or (seed = 2", lambda r: r["seed"] in (1, 2)),
        ("seed = 3 -- a remark", lambda r: r["seed"] == 3),
        ("train = (select max(train) from catalogue)", lambda r: r["train"] == r["best"]),
    ],
)
def test_a_filter_keeps_the_trials_for_which_it_holds(root, where, holds):
    table, _ = read_catalogue(root)
    rows = table.to_pylist()
    best = max(r["train"] for r in rows if r["train"] is not None)
    expected = [r for r in rows if holds(r | {"best": best})]
    assert expected
    assert select(table, where).to_pylist() == expected


def test_sorted_by_a_column_with_what_has_no_value_last(root):
    table, _ = read_catalogue(root)
    values = [v for v in table["random"].to_pylist() if v is not None]
    missing = [None] * (len(table) - len(values))
    assert select(table, sort="random")["random"].to_pylist() == sorted(values) + missing
    assert select(table, sort="-random")["random"].to_pylist() == sorted(values, reverse=True) + missing
    assert (
        select(table, "train > .5", "-train", 2)["train"].to_pylist()
        == sorted((v for v in table["train"].to_pylist() if v and v > 0.5), reverse=True)[:2]
    )
    assert select(table, limit=3).equals(table.slice(0, 3))
    with pytest.raises(UserError, match=r"random.*extrapolation"):
        select(table, sort="rndom")


@pytest.mark.parametrize(
    "where",
    [
        "", "--", "train >", "trian > .5", "train /*", "count(*) > 1", "'abc'", "\ud800", "train = 'abc'", "?", "$1",
        "1=1); DROP TABLE catalogue; --", "1=1); DROP VIEW catalogue; SELECT (1", "1=1); SELECT (1=1",
        "1=1) UNION ALL (SELECT 'x' WHERE 1=1", "1=1) UNION SELECT 'x' WHERE (1=1", "1=1) LIMIT (1",
        "1=1) ORDER BY (1", "1=1)] UNION SELECT [(1", "1=1); COPY catalogue TO 'stolen.csv'; --",
        "(SELECT count(*) FROM read_csv('/etc/passwd')) > 0", "(SELECT count(*) FROM read_text('/etc/passwd')) > 0",
        "(SELECT count(*) FROM '/etc/passwd') > 0", "(SELECT count(*) FROM glob('/*')) > 0",
        "(SELECT count(*) FROM read_parquet('catalogue.parquet')) > 0", "(SELECT count(*) FROM table) > 0",
        "(SELECT 1 FROM query('DROP VIEW catalogue')) > 0", "1=1); SET enable_external_access = true; SELECT (1",
        "1=1); ATTACH 'x.db'; SELECT (1", "1=1); INSTALL httpfs; LOAD httpfs; SELECT (1", "1=1); PRAGMA version; --",
        "(COPY catalogue TO 'stolen.csv')", "(INSERT INTO catalogue VALUES (1))", "(CREATE TABLE x (a INT))",
    ],
)  # fmt: skip
def test_a_filter_can_do_nothing_but_filter(root, where, monkeypatch):
    monkeypatch.chdir(root)
    table, _ = read_catalogue(root)
    before = sorted(root.rglob("*"))
    with pytest.raises(UserError) as e:
        select(table, where)
    for column in ("train_examples", "extrapolation", '"describe"'):
        assert column in str(e.value)
    assert sorted(root.rglob("*")) == before


@pytest.mark.slow
def test_the_command_line_filters_sorts_and_limits(root):
    def ls(*words, code=0):
        command = [sys.executable, "-m", "crevasse.cli", "ls", str(root), *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done

    expected = by_hand(root)
    listed = json.loads(ls("--json").stdout)
    assert set(listed) == {"trials", "damaged"}
    assert {t["folder"] for t in listed["trials"]} == {str(root / f) for f in expected}
    for t in listed["trials"]:
        assert set(t) == {"id", "status", "describe", "folder", "train", "splits", "lockstep", "s_max", "steps",
                          "seconds"}  # fmt: skip
        result = json.loads((Path(t["folder"]) / "trial.json").read_text())["result"] or {}
        assert {k: t[k] for k in ("train", "splits", "steps")} == {
            k: result.get(k) for k in ("train", "splits", "steps")
        }
    best = json.loads(ls("--json", "--sort", "-train", "--limit", "1", "--where", "seed < 9").stdout)["trials"]
    assert best[0]["train"] == max(r["train"] for r in expected.values() if r["seed"] < 9)
    lines = ls().stdout.splitlines()
    assert len(lines) == len(expected) + 2, "one for the heads, one for the number of trials"
    refused = ls("--where", "trian > 1", code=2)
    assert refused.stdout == "" and refused.stderr.count("\n") == 1 and "train_examples" in refused.stderr


# --- curves ------------------------------------------------------------------------------------------------------


def curves_by_hand(folder):
    columns = store.read_columns(folder / store.LEDGER)
    read = ~np.isnan(columns["train_loss"].astype(float))
    missing = np.full(len(read), np.nan)  # a column that ledgers of before lack
    return {curve: columns.get(name, missing)[read].tolist() for curve, name in CURVES.items()}


def as_evidence(curves):
    schema = pa.schema([EVIDENCE.field(n) for n in CURVES])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(curves, schema=schema), sink)
    return sink.getvalue().to_pybytes()


def test_the_curves_of_many_trials_are_those_of_each(tmp_path):
    draw = np.random.default_rng(0)
    folders = []
    for number, rows in enumerate((1, 0, 40, 5000, 40, 40)):
        # Names that a pattern, a partition or a home folder is made of.
        folder = tmp_path / ("a[1]*?", "~", "step=5", "it's", "ü b", "plain")[number] / "trials" / f"{number}"
        folder.mkdir(parents=True)
        columns = {n: np.exp(draw.normal(size=rows) * 9) for n in ("train_loss", "held_out_loss")}
        if number > 1:
            columns["passes"] = draw.random(rows)
        unread = draw.random(rows) < 0.6
        for values in columns.values():
            values[unread] = np.nan
        if rows == 40:
            columns["held_out_loss"][~unread] = draw.choice([np.nan, np.inf, 1e300, 0.1, 0.0], size=(~unread).sum())
            columns["train_loss"][~unread] = draw.choice([np.inf, 1e300, 1e-320, 0.1], size=(~unread).sum())
        if number == 4:
            columns["train_loss"][:] = np.nan
        store.write_columns(folder / store.LEDGER, {"step": np.arange(rows), **columns})
        folders.append(folder)
    order = [folders[i] for i in (3, 0, 1, 2, 3, 5, 4, 0)]
    found, expected = read_curves(order), [curves_by_hand(f) for f in order]
    assert as_evidence(found) == as_evidence(expected)
    assert repr(found) == repr(expected)
    assert read_curves([]) == []


def test_a_ledger_that_is_missing_or_damaged_is_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        store.write_columns(
            tmp_path / name / store.LEDGER,
            {"step": np.arange(3), "train_loss": np.ones(3), "held_out_loss": np.ones(3)},
        )
    (tmp_path / "b" / store.LEDGER).write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"b/ledger\.parquet is damaged"):
        read_curves([tmp_path / "a", tmp_path / "b"])
    (tmp_path / "b" / store.LEDGER).unlink()
    with pytest.raises(UserError, match=r"b/ledger\.parquet: no such file"):
        read_curves([tmp_path / "a", tmp_path / "b"])


# --- real trials: verify and merge -------------------------------------------------------------------------------


@pytest.fixture
def trials(tmp_path, small):
    """A store with two complete trials and one that was interrupted; their ids."""
    root = tmp_path / "here"
    configs = [small(steps=20, seed=seed) for seed in range(3)]
    for config in configs[:2]:
        run_trial(config, root)
    interrupt(configs[2], root, 8)
    return root, configs


def interrupt(config, root, step):
    """Run a trial up to a step at which a reading is taken, and stop it there at a checkpoint."""

    def stop(progress):
        if progress.step >= step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(config, root, progress=stop)


def content(folder):
    """Everything in a folder but locks and the catalogue, as bytes."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in (".lock", INDEX)
    }


def verify(root):
    return transfer.verify(store.trial_folders(root), REVISION)


def test_what_was_written_is_verified(trials):
    root, configs = trials
    found = verify(root)
    assert (found.trials, found.verified, found.running, found.damaged, found.older) == (3, 2, 1, [], [])
    for config in configs:
        data = store.load_trial(root / "trials" / config.id)
        assert transfer._id(data) == config.id == data["id"], "the hash of what is on disk is that of the config"


@pytest.mark.slow
@pytest.mark.parametrize("name", [store.LEDGER, store.WEIGHTS, store.CLOCK])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.7, 0.999])
def test_a_flipped_byte_in_any_file_is_found(trials, name, where):
    root, configs = trials
    path = root / "trials" / configs[0].id / name
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(data)
    found = verify(root)
    assert (found.verified, found.running, len(found.damaged)) == (1, 1, 1)
    assert str(path) in found.damaged[0] and "remove" in found.damaged[0]


def spoil(folder, **over):
    """Written anew with a checksum that fits: what is wrong has to be noticed otherwise."""
    store.write_json(folder / store.TRIAL, store.seal(json.loads((folder / store.TRIAL).read_text()) | over))


def test_what_a_trial_says_of_itself_is_checked(trials):
    root, configs = trials
    folder = root / "trials" / configs[0].id
    data = json.loads((folder / store.TRIAL).read_text())
    for over in (
        {"config": data["config"] | {"batch": 33}}, {"config": data["config"] | {"rule": {}}}, {"revision": 1},
        {"id": "0" * 12}, {"files": {}}, {"files": None}, {"status": "finished"}, {"result": None},
        {"files": data["files"] | {"../x": "0"}}, {"files": data["files"] | {"..": "0"}}, {"status": "running"},
        {"files": {n: d for n, d in data["files"].items() if n != store.CLOCK}}, {"config": []},
        {"files": data["files"] | {"notes.txt": "0"}}, {"files": data["files"] | {store.CLOCK: 5}},
    ):  # fmt: skip
        spoil(folder, **over)
        found = verify(root)
        assert (found.verified, len(found.damaged)) == (1, 1), over
        spoil(folder, **data)
    (root / "trials" / configs[2].id / store.CHECKPOINT).write_bytes(b"damage")
    assert "checkpoint" in verify(root).damaged[0]
    folder.rename(folder.with_name("a" * 12))
    assert any("give it that name" in line for line in verify(root).damaged)


def test_an_older_revision_is_no_damage(trials):
    root, _ = trials
    found = transfer.verify(store.trial_folders(root), REVISION + 1)
    assert found.damaged == [] and found.verified == 2
    assert len(found.older) == 3 and f"revision {REVISION}" in found.older[0]


def cli(*words, code=0):
    done = subprocess.run([sys.executable, "-m", "crevasse.cli", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == code, (words, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.slow
def test_ls_verify_prints_what_is_damaged_and_exits_2(trials):
    root, configs = trials
    assert "2 verified, 1 unfinished, 0 damaged" in cli("ls", root, "--verify").stdout
    (root / "trials" / configs[0].id / store.LEDGER).unlink()
    (root / "trials" / configs[1].id / store.TRIAL).write_text("{")
    done = cli("ls", root, "--verify", code=2)
    assert done.stderr == "crevasse: 2 of 3 trials are damaged\n"
    assert sum("remove" in line for line in done.stdout.splitlines()) == 2
    found = json.loads(cli("ls", root, "--verify", "--json", code=2).stdout)
    assert {k: found[k] for k in ("trials", "verified", "running")} == {"trials": 3, "verified": 0, "running": 1}
    assert len(found["damaged"]) == 2


def test_a_copied_folder_is_the_same_store(trials, tmp_path):
    root, configs = trials
    there = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", root, there], check=True)
    assert verify(there) == verify(root)
    assert run_trial(configs[2], there)["status"] == "done", "an interrupted trial goes on elsewhere"
    assert run_trial(configs[0], there) == store.load_trial(root / "trials" / configs[0].id)


def test_merging_is_a_union_and_doing_it_again_changes_nothing(trials, tmp_path, small):
    root, configs = trials
    there = tmp_path / "there"
    run_trial(configs[1], there)
    run_trial(small(steps=20, seed=7), there / "study")
    kept = content(there / "trials" / configs[1].id)
    found = transfer.merge([root], there)
    assert found.copied == [configs[0].id] and found.checkpoints == [configs[2].id]
    assert (found.kept, found.differs, found.damaged, found.in_use) == (1, [], [], [])
    for config in (configs[0], configs[2]):
        assert content(there / "trials" / config.id) == content(root / "trials" / config.id)
    assert content(there / "trials" / configs[1].id) == kept
    assert (verify(there).verified, verify(there).running, verify(there).damaged) == (3, 1, [])
    before = content(there)
    again = transfer.merge([root], there)
    assert (again.copied, again.checkpoints, again.kept) == ([], [], 3)
    assert content(there) == before

    back = transfer.merge([there], root)
    assert len(back.copied) == 1 and back.kept == 3
    names = {p.relative_to(there) for p in store.trial_folders(there)}
    assert {p.relative_to(root) for p in store.trial_folders(root)} == names
    done = run_trial(configs[2], there)
    alone = run_trial(configs[2], tmp_path / "alone")
    assert done["files"][store.WEIGHTS] == alone["files"][store.WEIGHTS]


@pytest.mark.parametrize("place", ["root", "trials", "trial"])
def test_whatever_folder_is_named_its_trials_go_to_trials(trials, tmp_path, place):
    root, configs = trials
    source = {"root": root, "trials": root / "trials", "trial": root / "trials" / configs[0].id}[place]
    assert configs[0].id in transfer.merge([source], tmp_path / "there").copied
    assert (tmp_path / "there" / "trials" / configs[0].id / store.TRIAL).exists()


def test_nothing_gives_way_to_something_lesser(trials, tmp_path):
    root, configs = trials
    config, trial = configs[2], Path("trials") / configs[2].id
    further, complete, none = (tmp_path / n for n in ("further", "complete", "none"))
    interrupt(config, further, 10)
    run_trial(config, complete)
    shutil.copytree(root / trial, none / trial)
    (none / trial / store.CHECKPOINT).unlink()
    for less, more in ((none, root), (root, further), (further, complete), (none, complete)):
        target = tmp_path / "target"
        shutil.copytree(more, target)
        before = content(target / trial)
        assert transfer.merge([less], target).kept > 0
        assert content(target / trial) == before
        shutil.rmtree(target)
        shutil.copytree(less, target)
        assert config.id in [*(found := transfer.merge([more], target)).copied, *found.checkpoints]
        assert content(target / trial) == before
        shutil.rmtree(target)
    assert not store.trial_folders(Path(tmp_path / "target"))


def test_the_same_trial_with_other_weights_is_kept_and_told(trials, tmp_path):
    root, configs = trials
    there = tmp_path / "there"
    shutil.copytree(root, there)
    folder = there / "trials" / configs[0].id
    (folder / store.WEIGHTS).write_bytes((folder / store.WEIGHTS).read_bytes() + b" ")
    files = json.loads((folder / store.TRIAL).read_text())["files"]
    spoil(folder, files=files | {store.WEIGHTS: store.digest(folder / store.WEIGHTS)})
    before = content(there)
    found = transfer.merge([root], there)
    assert len(found.differs) == 1 and "differs" in found.differs[0] and configs[0].id in found.differs[0]
    assert content(there) == before


def test_what_is_damaged_is_skipped_here_and_mended_there(trials, tmp_path):
    root, configs = trials
    there = tmp_path / "there"
    shutil.copytree(root, there)
    (root / "trials" / configs[1].id / store.WEIGHTS).write_bytes(b"damage")
    (there / "trials" / configs[0].id / store.LEDGER).write_bytes(b"damage")
    (there / "trials" / configs[2].id / store.CHECKPOINT).write_bytes(b"damage")
    found = transfer.merge([root], there)
    assert found.copied == [configs[0].id]
    assert len(found.damaged) == 2, "in the source, and a checkpoint that gives way to what is complete only"
    assert str(root) in found.damaged[0] + found.damaged[1] and str(there) in found.damaged[0] + found.damaged[1]
    assert len(verify(there).damaged) == 1
    assert verify(there).verified == 2


def test_a_trial_in_use_is_left_alone(trials, tmp_path):
    root, configs = trials
    there = tmp_path / "there"
    with store.owned(there / "trials" / configs[0].id):
        found = transfer.merge([root], there)
    assert len(found.in_use) == 1 and configs[0].id in found.in_use[0]
    assert found.copied == [configs[1].id]


@pytest.mark.slow
@pytest.mark.parametrize("writes", range(6))
def test_killed_between_any_two_files_it_can_be_done_again(trials, tmp_path, writes, monkeypatch):
    root, configs = trials
    there = tmp_path / "there"
    interrupt(configs[0], there, 10)
    left, replace_path = [writes], Path.replace

    def killed(path, target):
        if left[0] == 0:
            raise SystemExit
        left[0] -= 1
        return replace_path(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(SystemExit):
        transfer.merge([root], there)
    monkeypatch.undo()
    found = verify(there)
    assert found.damaged == [], "what is there is true"
    transfer.merge([root], there)
    assert (verify(there).verified, verify(there).running, verify(there).damaged) == (2, 1, [])
    for config in configs:
        assert content(there / "trials" / config.id) == content(root / "trials" / config.id)


@pytest.mark.slow
def test_merge_on_the_command_line(trials, tmp_path):
    root, configs = trials
    for words, needle in (
        (["merge", root, "--out", root], "same folder"),
        (["merge", root, "--out", root / "trials" / "x"], "lies in"),
        (["merge", root / "trials", "--out", root], "lies in"),
        (["merge", root, tmp_path / "nowhere", "--out", tmp_path / "there"], "no such folder"),
        (["merge"], "SOURCE"),
    ):
        done = cli(*words, code=2)
        assert done.stdout == "" and done.stderr.count("\n") == 1 and needle in done.stderr, done.stderr
    assert not (tmp_path / "there").exists()
    merged = json.loads(cli("merge", root, "--out", tmp_path / "there", "--json").stdout)
    assert sorted(merged["copied"]) == sorted(c.id for c in configs[:2])
    assert set(merged) == {"copied", "checkpoints", "kept", "differs", "damaged", "in_use"}
    assert "0 trials copied, 0 further checkpoints, 3 kept" in cli("merge", root, "--out", tmp_path / "there").stdout


def test_a_changed_digit_in_a_result_is_noticed(tmp_path, small):
    config = small(steps=5)
    run_trial(config, tmp_path)
    path = tmp_path / "trials" / config.id / store.TRIAL
    record = json.loads(path.read_text("utf-8"))
    record["result"]["train"] += 0.25
    path.write_text(json.dumps(record), "utf-8")
    with pytest.raises(UserError, match="checksum is wrong"):
        store.load_trial(path.parent)
    assert len(transfer.verify([path.parent], REVISION).damaged) == 1
