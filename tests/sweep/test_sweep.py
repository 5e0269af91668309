"""A sweep runs what is missing and nothing else, loses nothing to a trial that fails, and can be interrupted."""

import json
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from crevasse import api
from crevasse.errors import UserError
from crevasse.sweep.grid import read_sweep
from crevasse.terminal import Live, print_sweep

COMMAND = [sys.executable, "-m", "crevasse.cli", "sweep"]
DOCS = Path(__file__).resolve().parents[2] / "docs"
TINY = """
task = "iterated-product:p=7,T=1-3,beyond=4"
model = "bilinear:width=8,products=8"
steps = 10
batch = 32
train = 60
held_out = 20
probe_rows = 16
seeds = 2
"""
GRID = f'{TINY}[grid]\ntrain = [40, 60]\n"rule.decay" = [0.1, 1.0]\n'


@pytest.fixture
def sweep(tmp_path):
    """Run the sweep that a text describes, in this process."""

    def run(text=GRID, name="s", **options):
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return api.sweep(path, out=tmp_path / "out", workers=1, **options)

    return run


def written(out):
    """The modification times of all trials, by id."""
    return {p.parent.name: p.stat().st_mtime_ns for p in out.glob("trials/*/trial.json")}


def test_the_results_are_the_means_over_seeds_of_its_trials(sweep, tmp_path):
    result = sweep()
    assert result == json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert {k: result[k] for k in ("sweep", "budget", "trials", "ran", "read", "failed")} == {
        "sweep": "s", "budget": None, "trials": 8, "ran": 8, "read": 0, "failed": 0,
    }  # fmt: skip
    assert [line["setting"] for line in result["settings"]] == [
        {"train": t, "rule.decay": d} for t in (40, 60) for d in (0.1, 1.0)
    ]
    for line in result["settings"]:
        assert set(line) >= {"setting", "seeds", "train", "splits", "lockstep", "s_max", "learned", "passes", "seconds",
                             "trials", "status"}  # fmt: skip
        found = [json.loads((tmp_path / "out/trials" / i / "trial.json").read_text())["result"] for i in line["trials"]]
        assert line["seeds"] == line["train"]["n"] == 2
        assert line["train"]["mean"] == pytest.approx(np.mean([r["train"] for r in found]))
        assert line["splits"]["random"]["mean"] == pytest.approx(np.mean([r["splits"]["random"] for r in found]))
        assert line["passes"] == sum(r["passes"] for r in found)


def test_the_evidence_has_a_row_a_trial_with_what_varies(sweep, tmp_path):
    result = sweep()
    rows = pq.read_table(tmp_path / "out" / "evidence.parquet").to_pylist()
    assert [r["trial"] for r in rows] == [i for line in result["settings"] for i in line["trials"]]
    assert [(r["setting.train"], r["setting.rule.decay"], r["seed"]) for r in rows] == [
        (t, d, s) for t in (40, 60) for d in (0.1, 1.0) for s in (0, 1)
    ]
    assert all(r["status"] == "done" and r["error"] is None and 0 <= r["random"] <= 1 for r in rows)


def test_values_of_any_kind_stand_in_the_evidence(sweep, tmp_path):
    sweep(
        TINY.replace("train = 60", "train = 30")
        + 'data_seed = 1\n[grid]\n"task.T" = [[1, 2], "1-3"]\ndata_seed = [1, "seed"]\nwarmup = [0, 0.5]\n'
    )
    rows = pq.read_table(tmp_path / "out" / "evidence.parquet").to_pylist()
    assert {r["setting.task.T"] for r in rows} == {"[1, 2]", "1-3"}
    assert {r["setting.data_seed"] for r in rows} == {"1", "seed"}
    assert {r["setting.warmup"] for r in rows} == {0.0, 0.5}


def test_repeated_it_runs_nothing_and_extended_only_what_is_missing(sweep, tmp_path):
    sweep()
    before = written(tmp_path / "out")
    again = sweep(resume=True)
    assert (again["ran"], again["read"]) == (0, 8)
    assert written(tmp_path / "out") == before
    more = sweep(GRID.replace("seeds = 2", "seeds = 3").replace("[40, 60]", "[30, 40, 60]"))
    assert (more["ran"], more["read"]) == (10, 8)
    after = written(tmp_path / "out")
    assert {i: after[i] for i in before} == before
    assert len(after) == 18


def test_resume_needs_trials_and_any_sweep_goes_on_without_it(sweep, tmp_path):
    with pytest.raises(UserError, match="no trials to go on with"):
        sweep(resume=True)
    assert not (tmp_path / "out").exists()


def test_one_failing_trial_takes_no_other_with_it(sweep, tmp_path):
    with pytest.raises(UserError, match=r"^2 of 6 trials could not run: .*1000.*; the others are in .*out$"):
        sweep(TINY + "[grid]\ntrain = [40, 1000, 60]\n")
    result = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert (result["trials"], result["ran"], result["failed"]) == (6, 4, 2)
    assert [line["status"] for line in result["settings"]] == ["done", "failed", "done"]
    assert [e["trial"] for e in result["errors"]] == result["settings"][1]["trials"]
    rows = pq.read_table(tmp_path / "out" / "evidence.parquet").to_pylist()
    assert [r["status"] for r in rows] == ["done"] * 2 + ["failed"] * 2 + ["done"] * 2
    assert all("1000" in r["error"] for r in rows[2:4])


def test_a_damaged_trial_is_told_and_the_others_are_read(sweep, tmp_path):
    first = sweep()["settings"][0]["trials"][0]
    (tmp_path / "out" / "trials" / first / "ledger.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match=r"1 of 8 trials could not run: .*ledger.parquet is damaged"):
        sweep()


def test_a_diverging_setting_is_told_as_such(sweep):
    result = sweep(TINY + '[grid]\nrule = ["sgd:lr=0.1", "sgd:lr=900000"]\nsteps = [40]\n')
    assert [line["status"] for line in result["settings"]] == ["done", "diverged"]
    assert result["settings"][1]["train"] is None


def test_the_same_trial_twice_runs_once(sweep):
    result = sweep(TINY + '[grid]\nrule = ["adamw", "adamw:lr=0.003"]\n')
    assert (result["trials"], len(result["settings"]), len(result["notes"])) == (2, 1, 1)


def test_a_budget_has_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text(GRID + "[budgets.smoke]\nseeds = 1\n[budgets.smoke.grid]\ntrain = [40]\n")
    result = api.sweep("s.toml", budget="smoke", workers=1)
    assert (result["budget"], result["trials"]) == ("smoke", 2)
    assert [p.name for p in Path("crevasse-out").iterdir()] == ["s-smoke"]


def test_a_dry_run_counts_and_writes_nothing(sweep, tmp_path, capsys):
    plan = sweep(dry_run=True)
    assert {k: plan[k] for k in ("settings", "seeds", "trials", "complete")} == {
        "settings": 4, "seeds": [2], "trials": 8, "complete": 0,
    }  # fmt: skip
    assert plan["jobs"] >= 1 and plan["workers"] == 1
    assert plan["seconds"] > 0 and len(plan["step_ms"]) == 1
    assert {p.name for p in tmp_path.iterdir()} == {"s.toml"}

    sweep()
    before = written(tmp_path / "out")
    plan = sweep(GRID.replace("seeds = 2", "seeds = 3"), dry_run=True)
    assert (plan["trials"], plan["complete"]) == (12, 8)
    done = sweep(dry_run=True)
    assert (done["complete"], done["jobs"], done["step_ms"]) == (8, 0, [])
    assert written(tmp_path / "out") == before
    failing = sweep(TINY + "[grid]\ntrain = [40, 1000]\nbatch = [16, 1001]\n", dry_run=True)
    assert failing["seconds"] > 0
    only = sweep(TINY.replace("train = 60", "train = 1000"), dry_run=True)
    assert only["seconds"] is None and "1000" in only["notes"][0]


def test_events_name_trials_by_setting_and_seed(sweep):
    heard = []
    sweep(on_event=lambda total, label, event: heard.append((total, label, event)))
    ended = [(total, label) for total, label, event in heard if event.ended]
    assert {total for total, _ in ended} == {8}
    assert len({label for _, label in ended}) == 8
    assert ("train=40, rule.decay=0.1 · seed 1") in {label for _, label in ended}
    live = Live(quiet=True)
    ends = [event for _, _, event in heard if event.ended]
    for event in ends[:7]:
        live.sweep_event(8, "", event)
    assert live._footer(7.0) == "7/8 trials, 0 failed, 7 s, about 1 s left"
    assert sorted(event.number for event in ends) == list(range(8))


def test_the_table_has_a_line_a_setting(sweep, tmp_path, capsys):
    print_sweep(sweep(), tmp_path / "out")
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].startswith("4 settings × 2 seeds: 8 trials, 0 failed")
    assert sum(line.startswith("train=") for line in lines) == 4


@pytest.mark.slow
def test_the_worked_example_of_the_docs_runs(tmp_path):
    page = (DOCS / "sweep.md").read_text("utf-8")
    files = dict(re.findall(r"```toml\n# (\w+)\.toml\n(.*?)```", page, flags=re.DOTALL))
    for name, text in files.items():
        (tmp_path / f"{name}.toml").write_text(text, "utf-8")
    assert len(read_sweep(tmp_path / "products.toml").configs) == 40, "as the page says"
    result = api.sweep(tmp_path / "products.toml", budget="smoke", out=tmp_path / "out")
    assert [tuple(line["setting"].values()) for line in result["settings"]] == [
        (case, 60, decay) for case in ("narrow", "gated") for decay in (0.01, 1.0)
    ]
    assert (result["trials"], result["failed"]) == (8, 0)
    duckdb = pytest.importorskip("duckdb")
    query = re.search(r"```sql\n(.*?)```", page, flags=re.DOTALL).group(1)
    rows = duckdb.sql(query.replace("evidence.parquet", str(tmp_path / "out" / "evidence.parquet"))).fetchall()
    assert len(rows) == 4

    tuned = api.sweep(tmp_path / "tuned.toml", out=tmp_path / "tuned")
    assert [len(line["tries"]) for line in tuned["settings"]] == [6, 6]


def begin(folder, steps):
    """A sweep in a process of its own, as soon as it has written something of a trial."""
    (folder / "s.toml").write_text(TINY.replace("steps = 10", f"steps = {steps}"))
    words = [*COMMAND, "s.toml", "--out", "out", "--quiet"]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not written(folder / "out") and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM])  # Ctrl-C is tested on a study and a run
def test_interrupted_it_exits_130_and_the_same_command_goes_on(tmp_path, how):
    process = begin(tmp_path, 3000)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.strip() == "crevasse: interrupted; the same command goes on from here"
    assert list(tmp_path.glob("out/trials/*/checkpoint.safetensors"))
    done = subprocess.run(
        [*COMMAND, "s.toml", "--out", "out", "--resume", "--json", "--quiet"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert (result["trials"], result["failed"]) == (2, 0)
    assert not list(tmp_path.glob("out/trials/*/checkpoint.safetensors"))


@pytest.mark.slow
def test_two_sweeps_cannot_use_one_folder_at_once(tmp_path):
    process = begin(tmp_path, 100_000)
    second = subprocess.run(
        [*COMMAND, "s.toml", "--out", "out", "--quiet"], cwd=tmp_path, capture_output=True, text=True
    )
    assert process.poll() is None, "the first one is still at work"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert (second.returncode, second.stdout) == (2, "")
    assert second.stderr.startswith("crevasse: out is in use by another process") and second.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "file"), [(500, "trial.json"), (4_000, "trial.json"), (500, "evidence.parquet")])
def test_where_files_cannot_grow_any_more_it_ends_with_one_line(tmp_path, limit, file):
    """As on a full disk, from the first record on, from a result on, and when all trials are there."""
    (tmp_path / "s.toml").write_text(GRID)
    if file != "trial.json":
        api.sweep(tmp_path / "s.toml", out=tmp_path / "out", workers=1)
    done = subprocess.run(
        [*COMMAND, "s.toml", "--out", "out", "--quiet"], cwd=tmp_path, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("crevasse: ") and done.stderr.count("\n") == 1, done.stderr
    assert "cannot write" in done.stderr and file in done.stderr
    assert not list(tmp_path.rglob("out/.writing-*"))
