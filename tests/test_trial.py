"""A trial: the same numbers whatever happens around it, and nothing lost."""

import dataclasses
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from crevasse import store
from crevasse.config import TrialConfig
from crevasse.documents import Data
from crevasse.errors import UserError
from crevasse.rules import RULES
from crevasse.spec import Named
from crevasse.sweep import run_all
from crevasse.trial import run_trial

FILES = (store.LEDGER, store.WEIGHTS)


def files_of(root, config):
    return {name: (root / "trials" / config.id / name).read_bytes() for name in FILES}


def without_clock(record):
    return {k: v for k, v in record["result"].items() if "seconds" not in k}


def test_the_same_config_ends_bitwise_the_same(tmp_path, small):
    config = small(form="trace", model="transformer:width=16")
    records = [run_trial(config, tmp_path / name) for name in "ab"]
    assert files_of(tmp_path / "a", config) == files_of(tmp_path / "b", config)
    assert without_clock(records[0]) == without_clock(records[1])


def test_the_global_generator_neither_steers_a_trial_nor_is_moved_by_it(tmp_path, small):
    torch.manual_seed(1)
    run_trial(small(), tmp_path / "a")
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))
    torch.manual_seed(2)
    run_trial(small(), tmp_path / "b")
    assert files_of(tmp_path / "a", small()) == files_of(tmp_path / "b", small())


@pytest.mark.parametrize("form", ["direct", "trace", "tool"])
def test_probes_leave_training_bitwise_unchanged(tmp_path, small, form):
    often, seldom = small(form=form, probe_every=1), small(form=form, probe_every=10_000)
    for config in (often, seldom):
        run_trial(config, tmp_path)
    a, b = (load_file(tmp_path / "trials" / c.id / store.WEIGHTS)["weights"] for c in (often, seldom))
    assert torch.equal(a, b)
    many, few = (store.read_columns(tmp_path / "trials" / c.id / store.LEDGER) for c in (often, seldom))
    np.testing.assert_array_equal(many["loss"], few["loss"])
    assert np.isfinite(many["train_loss"]).sum() > 20 * np.isfinite(few["train_loss"]).sum() / 4


RUN = """
import json, sys
from pathlib import Path
from crevasse.config import TrialConfig
from crevasse.trial import run_trial
config = TrialConfig.from_json(json.loads(sys.argv[1]))
print("ready", flush=True)
run_trial(config, Path(sys.argv[2]), checkpoint_seconds=0.02)
print("done", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_at_random_moments_it_ends_bitwise_as_if_it_had_not_been(tmp_path, small, how):
    config = small(form="trace", model="transformer:width=32", rule="gaf:threshold=1.2", steps=150)
    run_trial(config, tmp_path / "whole")
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "big"))
    kills, done = 0, False
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, json.dumps(config.to_json()), str(tmp_path / "killed")],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        # The first few are killed while they train (which takes about a second); then one may end.
        killer = threading.Timer(rng.uniform(0.1, 0.7), process.send_signal, [how])
        if kills < 2:
            killer.start()
        output, _ = process.communicate(timeout=120)
        killer.cancel()
        if process.returncode == 0:
            done = True
            break
        assert process.returncode == -how, output
        kills += 1
    assert done
    assert kills >= 1
    assert files_of(tmp_path / "killed", config) == files_of(tmp_path / "whole", config)
    a, b = (store.load_trial(tmp_path / d / "trials" / config.id) for d in ("killed", "whole"))
    assert without_clock(a) == without_clock(b)
    assert not (tmp_path / "killed" / "trials" / config.id / store.CHECKPOINT).exists()


def test_interrupted_it_writes_a_checkpoint_and_goes_on_from_there(tmp_path, small):
    config = small(steps=80)
    run_trial(config, tmp_path / "whole")

    def stop(progress):
        if progress.step >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(config, tmp_path / "cut", progress=stop)
    seen = []
    run_trial(config, tmp_path / "cut", progress=lambda p: seen.append(p.step))
    assert min(seen) >= 40
    assert files_of(tmp_path / "cut", config) == files_of(tmp_path / "whole", config)


def test_what_is_complete_is_read_not_run(tmp_path, small):
    first = run_trial(small(), tmp_path)
    steps = []
    assert run_trial(small(), tmp_path, progress=lambda p: steps.append(p)) == first
    assert steps == []


def test_a_loss_that_is_no_number_ends_the_trial_as_diverged_with_its_ledger(tmp_path, small):
    record = run_trial(small(rule="sgd:lr=100000"), tmp_path)
    assert record["status"] == "diverged"
    assert any("diverged at step" in n for n in record["result"]["notes"])
    ledger = store.read_columns(tmp_path / "trials" / record["id"] / store.LEDGER)
    assert len(ledger["step"]) == record["result"]["steps"] >= 1
    assert record["result"]["train"] is None
    assert record["result"]["splits"] == {}
    json.dumps(record, allow_nan=False)


def test_a_trial_in_which_nothing_moved_says_so(tmp_path, small):
    record = run_trial(small(rule="gaf:threshold=0"), tmp_path)
    assert record["result"]["moved_steps"] == 0
    assert "nothing moved: all 60 steps were filtered out" in record["result"]["notes"]
    assert record["result"]["passes"] == 120.0, "what was filtered out was paid for"


def test_the_ledger_holds_what_the_result_says(tmp_path, small):
    config = small()
    record = run_trial(config, tmp_path)
    ledger, result = store.read_columns(tmp_path / "trials" / config.id / store.LEDGER), record["result"]
    assert ledger["step"].tolist() == list(range(61))
    assert np.isfinite(ledger["loss"][:60]).all()
    assert np.isnan(ledger["loss"][60])
    probed = np.flatnonzero(np.isfinite(ledger["train_loss"]))
    assert {0, 10, 20, 30, 40, 50, 60} <= set(probed.tolist())
    assert result["uniform_loss"] == pytest.approx(math.log(6))
    assert result["s_max"] == pytest.approx(1 - np.nanmin(ledger["train_loss"]) / math.log(6), abs=1e-6)
    assert result["passes"] == 120
    assert result["samples"] == 60 * 32
    assert result["ceiling"] == {"train": 1.0, "random": 1.0, "extrapolation": 1.0}


@pytest.mark.slow
def test_a_learner_that_finds_the_rule_and_one_that_memorises_are_told_apart(tmp_path, small):
    learner = {"form": "trace", "model": "transformer", "rule": "adamw"}
    sizes = {"steps": 400, "batch": 64, "train": 2000, "held_out": 200}
    finds = run_trial(small("iterated-product", **learner, **sizes), tmp_path)["result"]
    random = run_trial(small(steps=500, labels="random", train=60), tmp_path)["result"]
    assert finds["splits"]["random"] > 0.9
    assert finds["rule_score"]["random"] > 0.9
    assert finds["lockstep"] > 0.8
    assert random["train"] > 0.95
    assert random["splits"]["random"] < 0.5
    assert random["lockstep"] < 0 < 0.5 < random["memorising"]


@pytest.mark.slow
def test_every_field_of_a_config_changes_what_the_trial_does(tmp_path, small):
    """No dead field: a change of any one gives another id, and other data, other weights or another ledger."""
    base = small(form="direct", model="transformer:width=16")
    other = {
        "task": small("iterated-product:p=7,T=1-4,beyond=5").task, "format": small(form="filler").format,
        "model": small(model="transformer:width=16,heads=2").model, "rule": small(rule="adamw:lr=0.02").rule,
        "train": 100, "steer": 20, "held_out": 10, "chunk": 20, "labels": "random", "noise": 0.5, "steps": 50,
        "batch": 16, "rows": 1000,
        "schedule": "constant", "warmup": 0.5, "probe_every": 5, "probe_rows": 16, "seed": 1, "data_seed": 7,
    }  # fmt: skip
    assert set(other) == {f.name for f in dataclasses.fields(TrialConfig)}
    run_trial(base, tmp_path)
    for name, value in other.items():
        more = {"labels": "noisy"} if name == "noise" else {}
        changed = dataclasses.replace(base, **{name: value}, **more)
        assert changed.id != base.id, name
        run_trial(changed, tmp_path)
        assert files_of(tmp_path, changed) != files_of(tmp_path, base), name


def test_every_option_of_every_rule_model_and_format_is_read():
    """An option that is nowhere read in its class would be a promise that is not kept."""
    import inspect

    from crevasse.formats import FORMATS
    from crevasse.models import MODELS

    for table in (RULES, MODELS, FORMATS):
        for name in table:
            cls = table.cls(name)
            modules = {m.__module__ for m in cls.__mro__ if m.__module__.startswith("crevasse.")}
            source = "".join(inspect.getsource(sys.modules[m]) for m in modules)
            for field in dataclasses.fields(cls):
                assert f".{field.name}" in source, f"{name}.{field.name}"


def test_a_config_comes_back_from_its_json(small):
    config = small(rule="gaf:k=4,base=sgd,base.lr=0.3", labels="noisy", noise=0.25)
    again = TrialConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    assert again.id == config.id
    assert isinstance(again.rule.base, Named)
    assert again.rule.base.lr == 0.3
    with pytest.raises(UserError, match="does not fit"):
        TrialConfig.from_json({**config.to_json(), "depth": 3})


@pytest.mark.parametrize("rule", ["egd:base=sgd,base.lr=900000", "upgrad:base=sgd,base.lr=900000"])
def test_a_rule_that_takes_matrices_apart_diverges_like_any_other(tmp_path, small, rule):
    assert run_trial(small(rule=rule, steps=20), tmp_path)["status"] == "diverged"


def test_damage_is_told_and_nothing_is_lost(tmp_path, small):
    config = small()
    record = run_trial(config, tmp_path)
    folder = tmp_path / "trials" / config.id
    for name in (store.LEDGER, store.WEIGHTS, store.TRIAL):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(UserError, match="damaged"):
            run_trial(config, tmp_path)
        assert (folder / name).read_bytes() == whole[: len(whole) // 2], "what is left is left as it is"
        (folder / name).write_bytes(whole)
    (folder / store.LEDGER).unlink()
    with pytest.raises(UserError, match="missing"):
        run_trial(config, tmp_path)
    assert record["status"] == "done"


def test_a_damaged_or_foreign_checkpoint_is_told(tmp_path, small):
    config = small()
    folder = store.make_folder(tmp_path / "trials" / config.id)
    (folder / store.CHECKPOINT).write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="damaged"):
        run_trial(config, tmp_path)


@pytest.mark.slow
def test_a_folder_in_use_by_another_process_is_refused(tmp_path, small):
    config = small(steps=100_000)
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, json.dumps(config.to_json()), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        process.stdout.readline()
        path = tmp_path / "trials" / config.id / store.TRIAL
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(UserError, match="in use by another process"):
            run_trial(config, tmp_path)
    finally:
        process.kill()
        process.wait()


def test_a_folder_that_cannot_be_written_is_told(tmp_path, small):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        run_trial(small(), tmp_path / "file" / "below")
    if os.path.exists("/dev/full"):
        with pytest.raises(UserError, match="cannot write"):
            run_trial(small(), store.Path("/proc/nowhere"))


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    store.write_json(path, {"a": 1})
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="No space left"):
        store.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize(
    ("fields", "needle"),
    [
        ({"steps": -1}, "steps must lie"), ({"batch": 0}, "batch must lie"), ({"warmup": 2}, "warmup"),
        ({"labels": "wrong"}, "labels must be"), ({"noise": 0.5}, "noise goes with"), ({"seed": -1}, "seed must lie"),
        ({"train": 10**6}, "1000000"), ({"held_out": 0}, "held_out"), ({"train": 0}, "0"),
    ],
)  # fmt: skip
def test_impossible_numbers_are_refused_in_one_line(tmp_path, small, fields, needle):
    with pytest.raises(UserError) as error:
        run_trial(small(**fields), tmp_path)
    assert needle in str(error.value)
    assert "\n" not in str(error.value)


def test_a_batch_that_cannot_be_split_is_refused(tmp_path, small):
    with pytest.raises(UserError, match="splits each batch into 8 parts"):
        run_trial(small(rule="gaf:k=8", batch=5), tmp_path)


@pytest.mark.slow
def test_trials_side_by_side_are_those_of_one_after_another(tmp_path, small):
    configs = [small(seed=s, steps=30) for s in range(3)]
    events = []
    pool = run_all(configs, tmp_path / "pool", on_event=events.append, workers=2)
    alone = [run_trial(c, tmp_path / "alone") for c in configs]
    for together, by_itself in zip(pool, alone, strict=True):
        assert without_clock(together) == without_clock(by_itself)
    assert sorted(e.number for e in events if e.record is not None) == [0, 1, 2]


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_a_try_not_the_trial(tmp_path, small):
    config = small(steps=400, form="trace")
    killed = []

    def kill_once(event):
        if event.progress is not None and not killed:
            for worker in multiprocessing.active_children():
                worker.kill()
                killed.append(worker.pid)

    other = small(steps=400, form="trace", seed=1)
    records = run_all([config, other], tmp_path, on_event=kill_once, workers=2)
    assert killed, "a worker was killed"
    assert [r["status"] for r in records] == ["done", "done"]
    assert [r["id"] for r in records] == [config.id, other.id]


def test_one_trial_that_cannot_run_does_not_stop_the_others(tmp_path, small):
    good, bad = small(steps=20), small(train=10**6)
    with pytest.raises(UserError, match="1000000"):
        run_all([bad, good], tmp_path, workers=2)
    assert store.load_trial(tmp_path / "trials" / good.id)["status"] == "done"


def test_the_lengths_of_the_data_decide_the_context(small):
    data = Data(small(form="trace"))
    assert data.context >= max(int(e.lengths.max()) for e in (data.train, *data.tests.values()))


def test_sorting_a_batch_by_length_changes_its_cost_and_not_its_loss(small):
    """The loss of a bucketed batch is that of the padded one, and so is its gradient."""
    from crevasse.documents import Rows
    from crevasse.models import losses

    config = small("factorial", "trace", "transformer:width=16", train=None)
    data = Data(config)
    rows, every = Rows.of(data.train), torch.arange(14)
    buckets = rows.buckets(every)
    assert 2 <= len(buckets) <= 4
    assert rows.padded(buckets) < 0.75 * rows.padded([every])
    small_parts = rows.buckets(every, chunk=500)
    assert all(rows.padded([b]) <= 500 or len(b) == 1 for b in small_parts)
    assert sorted(torch.cat(small_parts).tolist()) == every.tolist()
    assert sorted(torch.cat(buckets).tolist()) == every.tolist()
    torch.manual_seed(0)
    model = config.model.build(len(data.script.vocabulary), data.context)
    parts = torch.cat([losses(model, *rows.pick(b))[0] for b in buckets]).mean()
    whole = losses(model, *rows.pick(every))[0].mean()
    torch.testing.assert_close(parts, whole)
    for a, b in zip(*(torch.autograd.grad(v, list(model.parameters())) for v in (parts, whole)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
