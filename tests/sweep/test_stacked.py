"""Stacked trials: each is what it is alone, in its own folder, whoever stands beside it and however it is stopped."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from crevasse import memory, store
from crevasse.errors import UserError
from crevasse.passes import Stack
from crevasse.rules import RULES
from crevasse.rules.adamw import AdamW
from crevasse.sweep import Job, make_plan, run_all
from crevasse.sweep.plan import STACK
from crevasse.sweep.work import run_job
from crevasse.trial import Trial, opened, run_trial

MODELS = [
    "transformer:width=16", "transformer:width=16,position=rotary,heads=2", "looped:width=16",
    "looped:width=16,position=first", "gru:width=16",
    "lstm:width=16", "bilinear:width=16,products=32",
]  # fmt: skip


def stacked(configs, root):
    """Run them as one job, in this process. -> events"""
    events = []
    run_job(Job(tuple(range(len(configs)))), configs, root, events.append)
    return events


@pytest.fixture
def small(small):
    """With a batch that can be stacked."""
    return lambda *args, **fields: small(*args, **{"batch": 64, **fields})


@pytest.fixture
def by_itself(monkeypatch):
    """Run a trial as one that is too large for a stack."""

    def run(config, root):
        with monkeypatch.context() as m:
            m.setattr("crevasse.passes.SMALL", 0)
            return run_trial(config, root)

    return run


def records(events):
    return {e.number: e.record for e in events if e.record is not None}


def losses(root, config):
    return store.read_columns(root / "trials" / config.id / store.LEDGER)


def files(root, config):
    """Digests of all that a trial leaves, but for how long it took."""
    folder = root / "trials" / config.id
    return {name: store.digest(folder / name) for name in (store.LEDGER, store.WEIGHTS)}


def same_curves(a, b, steps=30):
    """Step by step within the tolerance of float32, for as long as a difference has not grown."""
    for name in ("loss", "train_loss", "held_out_loss"):
        np.testing.assert_allclose(a[name][: steps + 1], b[name][: steps + 1], rtol=2e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", ["direct", "trace"])
def test_a_stacked_trial_is_what_it_is_alone(tmp_path, small, by_itself, form, model):
    configs = [small(form=form, model=model, seed=s, rule=f"adamw:lr={lr}") for s in (0, 1) for lr in (0.002, 0.01)]
    found = records(stacked(configs, tmp_path / "stack"))
    assert sorted(found) == [0, 1, 2, 3]
    for i, config in enumerate(configs):
        alone = by_itself(config, tmp_path / "alone")
        assert found[i]["status"] == "done"
        same_curves(losses(tmp_path / "stack", config), losses(tmp_path / "alone", config))
        for name in ("passes", "samples", "steps", "parameters", "examples", "chance", "ceiling", "non_learners"):
            assert found[i]["result"][name] == alone["result"][name]


@pytest.mark.slow
@pytest.mark.parametrize("rule", [n for n in RULES if n != "file"])
def test_every_rule_stacks_also_beside_others(tmp_path, small, by_itself, rule):
    if getattr(RULES.parse(rule), "k", 0) > 3:
        rule = f"{rule}:k=2"
    made = RULES.parse(rule)
    # So that each microbatch and what steers can be stacked as well.
    sizes = {"batch": 64 * made.microbatches(), "train": 64 * made.microbatches() + 66, "steer": 64 * made.steers,
             "task": "iterated-product:p=7,T=1-4,beyond=5"}  # fmt: skip
    configs = [small(rule=rule, seed=1, **sizes), small(rule="sgd:lr=0.05", **sizes),
               small(rule=rule, seed=2, labels="random", **sizes)]  # fmt: skip
    with opened(configs[0], tmp_path / "see") as trial:
        assert trial.stacked
    found = records(stacked(configs, tmp_path / "stack"))
    for i, config in enumerate(configs):
        alone = by_itself(config, tmp_path / "alone")
        # Differences of gradients near by make rounding larger.
        steps = 10 if rule == "matching" else 30
        same_curves(losses(tmp_path / "stack", config), losses(tmp_path / "alone", config), steps)
        assert found[i]["result"]["moved_steps"] == alone["result"]["moved_steps"]


def test_trials_of_other_sizes_and_lengths_of_training_share_a_job(tmp_path, small, by_itself):
    configs = [small(seed=0), small(seed=1, train=60, steps=35), small(seed=2, batch=16), small(seed=3, steps=0),
               small(seed=4, probe_every=7)]  # fmt: skip
    found = records(stacked(configs, tmp_path / "stack"))
    assert sorted(found) == [0, 1, 2, 3, 4]
    for i, config in enumerate(configs):
        by_itself(config, tmp_path / "alone")
        same_curves(losses(tmp_path / "stack", config), losses(tmp_path / "alone", config))
        assert found[i]["result"]["steps"] == config.steps


def test_one_that_diverges_leaves_and_the_others_do_not_notice(tmp_path, small):
    configs = [small(seed=0), small(seed=1, rule="sgd:lr=1e5"), small(seed=2)]
    found = records(stacked(configs, tmp_path / "with"))
    assert [found[i]["status"] for i in range(3)] == ["done", "diverged", "done"]
    stacked([configs[0], configs[2]], tmp_path / "without")
    for config in (configs[0], configs[2]):
        assert files(tmp_path / "with", config) == files(tmp_path / "without", config)


def test_one_that_cannot_run_says_so_and_the_others_go_on(tmp_path, small):
    configs = [small(seed=0), small(train=10**6), small(seed=2)]
    events = stacked(configs, tmp_path)
    assert sorted(records(events)) == [0, 2]
    (error,) = [e for e in events if e.error is not None]
    assert error.number == 1 and "1000000" in error.error


def test_interrupted_a_stack_goes_on_bitwise_also_in_other_company(tmp_path, small):
    configs = [small("iterated-product:p=7,T=3,beyond=", seed=s, steps=80) for s in range(4)]
    stacked(configs, tmp_path / "whole")

    def stop(event):
        if event.progress is not None and event.number == 2 and event.progress.step >= 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(Job((0, 1, 2, 3)), configs, tmp_path / "cut", stop)
    for config in configs:
        assert (tmp_path / "cut" / "trials" / config.id / store.CHECKPOINT).exists()
    seen = []
    run_job(Job((0, 1)), configs[:2], tmp_path / "cut", seen.append)
    run_trial(configs[2], tmp_path / "cut")
    stacked(configs[3:], tmp_path / "cut")
    assert min(e.progress.step for e in seen if e.progress is not None) >= 39
    for config in configs:
        assert files(tmp_path / "cut", config) == files(tmp_path / "whole", config)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [64, 48, 13])
@pytest.mark.parametrize("model", ["transformer:width=32", "looped:width=16", "gru:width=24", "bilinear:width=16"])
def test_a_trial_gives_the_same_bits_by_itself_and_in_any_company(tmp_path, small, model, batch):
    configs = [small("iterated-product:p=7,T=3,beyond=", model=model, batch=batch, seed=s, steps=25) for s in range(4)]
    stacked(configs, tmp_path / "stack")
    for config in configs:
        run_trial(config, tmp_path / "alone")
        assert files(tmp_path / "stack", config) == files(tmp_path / "alone", config)


RUN = """
import json, sys
from pathlib import Path
from crevasse import trial
from crevasse.config import TrialConfig
from crevasse.sweep import Job
from crevasse.sweep.work import run_job
configs = [TrialConfig.from_json(c) for c in json.loads(sys.argv[1])]
trial.CHECKPOINT_SECONDS = 0.02
print("ready", flush=True)
run_job(Job(tuple(range(len(configs)))), configs, Path(sys.argv[2]), lambda event: None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_at_random_moments_a_stack_ends_bitwise_as_if_it_had_not_been(tmp_path, small, how):
    configs = [small(form="trace", model="transformer:width=32", rule=r, steps=120, seed=s)
               for s, r in enumerate(("adamw", "gaf:threshold=1.2", "sgd:lr=0.05"))]  # fmt: skip
    stacked(configs, tmp_path / "whole")
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "big"))
    kills = 0
    text = json.dumps([c.to_json() for c in configs])
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, text, str(tmp_path / "killed")],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert process.stdout.readline() == "ready\n"
        killer = threading.Timer(rng.uniform(0.2, 1.0), process.send_signal, [how])
        if kills < 2:
            killer.start()
        process.communicate(timeout=120)
        killer.cancel()
        if process.returncode == 0:
            break
        assert process.returncode == -how
        kills += 1
    assert kills >= 1
    for config in configs:
        assert files(tmp_path / "killed", config) == files(tmp_path / "whole", config)
        a, b = (store.load_trial(tmp_path / d / "trials" / config.id)["result"] for d in ("killed", "whole"))
        assert {k: v for k, v in a.items() if "seconds" not in k} == {k: v for k, v in b.items() if "seconds" not in k}


def test_where_memory_is_short_the_trials_of_a_stack_run_one_by_one(tmp_path, small, monkeypatch):
    configs = [small(seed=s) for s in range(3)]
    look = Stack.look

    def too_much(self, looks):
        if len(looks) > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 GB")
        return look(self, looks)

    monkeypatch.setattr(Stack, "look", too_much)
    assert sorted(records(stacked(configs, tmp_path))) == [0, 1, 2]


def test_out_of_memory_in_one_trial_is_said_of_it_alone(tmp_path, small, monkeypatch):
    configs = [small(seed=0, form="trace"), small(seed=1, chunk=50)]  # the second cannot be stacked
    from crevasse.passes import Alone

    def too_much(self, look):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Alone, "look", too_much)
    events = []
    run_job(Job((1,)), configs[1:], tmp_path, events.append)
    run_job(Job((0, 2)), [configs[0], small(seed=2, form="trace")], tmp_path, events.append)
    assert sorted(records(events)) == [0, 2]
    (error,) = [e.error for e in events if e.error is not None]
    assert error.startswith("out of memory in iterated-product")
    assert not memory.exhausted(RuntimeError("shapes do not match"))


@pytest.mark.parametrize("again", [False, True])
def test_an_interrupt_in_the_middle_of_an_update_leaves_no_torn_checkpoint(tmp_path, small, monkeypatch, again):
    config = small(steps=40)
    run_trial(config, tmp_path / "whole")
    apply, calls = AdamW.apply, []

    def interrupted(self, *args):
        calls.append(None)
        moved = apply(self, *args)  # the state has moved, the weights have not
        if len(calls) == 20:
            for _ in range(1 + again):
                signal.raise_signal(signal.SIGINT)
        return moved

    monkeypatch.setattr(AdamW, "apply", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_trial(config, tmp_path / "cut")
    assert (tmp_path / "cut" / "trials" / config.id / store.CHECKPOINT).exists() != again
    run_trial(config, tmp_path / "cut")
    assert files(tmp_path / "cut", config) == files(tmp_path / "whole", config)


def test_one_that_was_stopped_at_the_step_at_which_it_diverged_has_diverged(tmp_path, small, monkeypatch):
    config = small(steps=40, rule="sgd:lr=1e5")
    whole = run_trial(config, tmp_path / "whole")
    assert whole["status"] == "diverged"
    take = Trial._take

    def interrupted(self, update):
        take(self, update)
        if self.step == whole["result"]["steps"]:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trial, "_take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_trial(config, tmp_path / "cut")
    record = run_trial(config, tmp_path / "cut")
    assert (record["status"], record["result"]["steps"]) == ("diverged", whole["result"]["steps"])


def test_seconds_are_shared_out(tmp_path, small):
    configs = [small(seed=s) for s in range(4)]
    import time

    began = time.perf_counter()
    found = records(stacked(configs, tmp_path))
    total = time.perf_counter() - began
    assert sum(r["result"]["seconds"] for r in found.values()) < 1.5 * total


# --- the planner ------------------------------------------------------------------------------------------------


def numbers(plan):
    return [n for job in plan.jobs for n in job.numbers]


def test_a_plan_runs_every_trial_exactly_once(tmp_path, small):
    configs = [small(seed=s, rule=r, form=f, model=m) for s in range(5) for r in ("adamw", "sgd", "gaf")
               for f in ("direct", "trace") for m in ("bilinear:width=16", "transformer:width=512")]  # fmt: skip
    for workers in (1, 2, 7, 100):
        plan = make_plan(configs, tmp_path, workers=workers)
        assert sorted(numbers(plan)) == list(range(60))
        assert plan.workers <= workers
        assert all(job.threads * min(plan.workers, len(plan.jobs)) <= workers for job in plan.jobs)


def test_small_trials_of_one_shape_are_stacked_in_equal_shares_for_all_cores(tmp_path, small):
    configs = [small(seed=s, rule=f"adamw:lr={lr}") for s in range(10) for lr in (0.1, 0.2, 0.3, 0.4)]
    plan = make_plan(configs, tmp_path, workers=2)
    assert [len(job.numbers) for job in plan.jobs] == [13, 13, 14]
    assert max(len(job.numbers) for job in plan.jobs) <= STACK
    assert [len(j.numbers) for j in make_plan(configs[:6], tmp_path, workers=4).jobs] == [2, 2, 1, 1]
    assert numbers(plan)[0] == 0


def test_what_cannot_or_should_not_be_stacked_is_not(tmp_path, small):
    large = [small(model="transformer:width=256", seed=s) for s in range(3)]
    chunked = [small(chunk=100, seed=s) for s in range(3)]
    other = [small(model="gru"), small(model="gru:width=32"), small(model="gru", task="iterated-product:p=5")]
    assert all(len(job.numbers) == 1 for job in make_plan([*large, *chunked, *other], tmp_path, workers=2).jobs)


def test_an_idle_core_helps_a_large_trial_and_no_other(tmp_path, small):
    (job,) = make_plan([small(model="transformer:width=512", batch=120)], tmp_path, workers=4).jobs
    assert job.threads == 4
    (job,) = make_plan([small()], tmp_path, workers=4).jobs
    assert job.threads == 1


def test_many_small_groups_are_stacked_too(tmp_path, small):
    configs = [small(model=f"bilinear:width={w},products=32", seed=s) for w in range(8, 28) for s in range(5)]
    plan = make_plan(configs, tmp_path, workers=4)
    assert [len(job.numbers) for job in plan.jobs] == [5] * 20


def test_a_batch_larger_than_the_training_set_is_planned_as_the_training_set(tmp_path, small):
    (job,) = make_plan([small(batch=10**6, train=60)], tmp_path, workers=1).jobs
    assert job.memory < 2**30


def test_complete_trials_are_read_first_and_together(tmp_path, small):
    configs = [small(seed=s, steps=5) for s in range(4)]
    run_trial(configs[2], tmp_path)
    run_trial(configs[3], tmp_path)
    plan = make_plan(configs, tmp_path, workers=1)
    assert plan.jobs[0].numbers == (2, 3)


def test_jobs_wait_for_memory_but_one_always_runs(tmp_path, small):
    configs = [small(seed=s, batch=b, train=120) for s in range(2) for b in (8, 32)]
    plan = make_plan(configs, tmp_path, workers=4, free=10)
    a, b = plan.jobs[:2]
    assert plan.fits(a, []) and not plan.fits(b, [a])
    roomy = dataclasses.replace(plan, memory=a.memory + b.memory)
    assert roomy.fits(b, [a])
    assert [r["status"] for r in run_all(configs, tmp_path, plan=plan)] == ["done"] * 4


def test_a_long_trial_among_short_ones_starts_at_once(tmp_path, small):
    configs = [*[small(seed=s, steps=10, batch=8 + s) for s in range(6)], small(steps=100_000)]
    assert make_plan(configs, tmp_path, workers=2).jobs[0].numbers == (6,)


def test_errors_come_after_all_others_have_ended(tmp_path, small):
    with pytest.raises(UserError, match="1000000"):
        run_all([small(train=10**6), small(seed=1), small(seed=2)], tmp_path, workers=2)
    assert len(store.trial_folders(tmp_path)) == 2
