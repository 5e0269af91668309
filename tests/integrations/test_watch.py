"""The watch in a plain loop: training is bitwise what it is without, and it speaks up before accuracy falls."""

import copy
import json
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from crevasse.errors import UserError
from crevasse.integrations import LockstepMeter
from crevasse.integrations.meter import pace
from crevasse.integrations.watch import LockstepWatch

ROOT = Path(__file__).resolve().parents[2]


class Restless(nn.Module):
    """Draws from every generator, drops out, normalises over the batch, and counts how often it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        self.register_buffer("runs", torch.zeros((), dtype=torch.long))
        self.register_buffer("last", torch.zeros(()))

    def forward(self, x):
        random.random(), np.random.rand(), torch.rand(())
        self.runs += 1
        self.last = x.mean().detach()
        return self.layers(x)


def loss_of(model, batch):
    x, y = batch.values() if isinstance(batch, dict) else batch
    return nn.functional.cross_entropy(model(x), y)


def data(n=120, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator), torch.randint(3, (n,), generator=generator)


def sides(n=80):
    x, y = data()
    return {"train": (x[:n], y[:n]), "held_out": (x[n:], y[n:])}


def fit(watched: bool, steps=25, autocast=False, accumulate=1):
    """One training from the same start. -> everything that it leaves behind, and the watch"""
    torch.manual_seed(3), random.seed(3), np.random.seed(3)
    model, (x, y) = Restless(), data()
    model.layers[0].eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        watch = LockstepWatch(model, loss_of, **sides(), batch=20, steps=steps, every=3) if watched else None
        for _ in range(steps):
            for _ in range(accumulate):
                rows = torch.randint(80, (20,))
                loss_of(model, (x[rows], y[rows])).backward()
                if watch is not None and accumulate > 1:
                    watch.read()  # between the two halves of a gradient
            optimizer.step()
            optimizer.zero_grad()
            if watch is not None:
                watch.step()
    left = [*model.state_dict().values(), *(m.training for m in model.modules())]
    return [*left, random.random(), np.random.rand(), torch.rand(4)], watch


@pytest.mark.parametrize("settings", [{}, {"autocast": True}, {"accumulate": 2}], ids=["plain", "mixed", "accumulated"])
def test_training_is_bitwise_the_same(settings):
    ends, watch = fit(True, **settings)
    assert [r.step for r in watch.meter.readings][:3] == [0, *((1, 2) if "accumulate" in settings else (3, 6))]
    for one, other in zip(fit(False, **settings)[0], ends, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_a_reading_leaves_gradients_modes_and_buffers_alone():
    torch.manual_seed(0)
    model, (x, y) = Restless(), data()
    model.layers[3].eval()
    loss_of(model, (x, y)).backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    last = model.last
    LockstepWatch(model, loss_of, **sides(), batch=20)
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, model.parameters(), strict=True))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == modes
    assert model.last is last


def test_what_fails_in_a_reading_is_put_back_too():
    model = Restless()

    def broken(model, batch):
        model(batch[0])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        LockstepWatch(model, broken, **sides(), batch=20)
    assert model.runs == 0 and model.training and torch.is_autocast_cache_enabled() and torch.is_grad_enabled()


@pytest.mark.parametrize("batch", [7, 1000])
def test_the_loss_is_the_mean_over_all_rows_read(batch):
    model, both = Restless().eval(), sides()
    with torch.no_grad():
        expected = [loss_of(model, side).item() for side in both.values()]
    first = LockstepWatch(model, loss_of, **both, batch=batch, rows=1000).meter.readings[0]
    assert (first.train_loss, first.held_out_loss) == pytest.approx(expected, abs=1e-6)


def test_a_batch_can_be_a_tensor_a_tuple_a_list_or_a_dictionary():
    model, both, found = Restless(), sides(), []
    for form in (tuple, list, lambda side: dict(zip("ab", side, strict=True))):
        watch = LockstepWatch(model, loss_of, **{k: form(v) for k, v in both.items()}, batch=20)
        found.append(watch.meter.readings)
    assert found[0] == found[1] == found[2]
    watch = LockstepWatch(model, lambda m, b: m(b).square().mean(), **{k: v[0] for k, v in both.items()}, batch=20)
    assert len(watch.meter.readings) == 1


def test_rows_are_picked_from_everywhere_and_kept():
    """Training rows in order of their size: their first 64 would not be fair."""
    x, seen = torch.arange(6000.0).reshape(-1, 1), []
    watch = LockstepWatch(nn.Linear(1, 1), lambda m, b: (seen.append(b.clone()), m(b).mean())[1],
                          train=x[:5000], held_out=x[5000:], batch=64)  # fmt: skip
    assert [len(b) for b in seen] == [64, 64]
    assert 2000 < seen[0].mean() < 3000 and 5400 < seen[1].mean() < 5600
    x.zero_()
    watch.step(), watch.read()
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3])


@pytest.mark.parametrize(
    ("batch", "steps", "reading", "expected"),
    [
        (128, 3000, 128, (51, 60)),
        (128, 100, 128, (10, 11)),
        (8, 100, 128, (15, 8)),
        (8, 1500, 128, (150, 11)),
        (1, 1, 2, (1, 2)),
    ],
)
def test_the_pace_is_what_4_percent_pays_for(batch, steps, reading, expected):
    every, cost = pace(batch, steps, reading)
    readings = 1 + math.ceil(steps / every)
    assert (every, readings) == expected
    assert cost == pytest.approx(readings * reading / (3 * batch * steps))


def test_without_a_number_of_steps_it_reads_evenly_within_4_percent():
    watch = LockstepWatch(Restless(), loss_of, **sides(), batch=20, rows=30)
    assert (watch.every, watch.cost) == (25, pytest.approx(0.04))  # 2·30/(0.04·3·20)
    for _ in range(45):
        watch.step()
    watch.read(), watch.read()
    assert [r.step for r in watch.meter.readings] == [0, 25, 45]


def test_the_last_step_is_read_and_said():
    said = []
    watch = LockstepWatch(Restless(), loss_of, **sides(), batch=20, steps=5, every=3, say=said.append)
    for _ in range(5):
        watch.step()
    assert [r.step for r in watch.meter.readings] == [0, 3, 5]
    assert [line.partition(":")[0] for line in said] == ["step 3", "step 5"]


def test_a_killed_run_goes_on_with_its_readings():
    whole = fit(True, steps=12)[1]
    saved = json.loads(json.dumps(fit(True, steps=7)[1].state_dict(), allow_nan=False))
    model = Restless()
    watch = LockstepWatch(model, loss_of, **sides(), batch=20, steps=12, every=3)
    watch.load_state_dict(saved)
    assert (watch.count, watch.meter.readings) == (7, [*whole.meter.readings[:3], watch.meter.readings[3]])
    watch.step(), watch.step()
    assert [r.step for r in watch.meter.readings] == [0, 3, 6, 7, 9]
    with pytest.raises(UserError, match="other rows"):
        LockstepWatch(model, loss_of, **sides(70), batch=20).load_state_dict(saved)
    with pytest.raises(UserError, match="no state of a watch: readings, rows missing"):
        watch.load_state_dict({"count": 1})


def test_a_loss_that_is_no_number_is_noted_and_said():
    said, model = [], Restless()
    watch = LockstepWatch(model, loss_of, **sides(), batch=20, every=1, say=said.append)
    with torch.no_grad():
        model.layers[4].bias.fill_(math.nan)
    watch.step()
    assert said == ["step 1: a loss is no longer a number"]
    assert not watch.memorising
    assert "From step 1 on a loss was no longer a number" in watch.meter.result().verdict
    state = json.loads(json.dumps(watch.state_dict(), allow_nan=False))
    watch.load_state_dict(state)
    assert math.isnan(watch.meter.readings[1].train_loss)


def test_bad_input_is_refused_in_one_line():
    x, y = data()
    good, model = sides(), Restless()
    spoiled = tuple(torch.cat([b, a[5:8]]) for a, b in zip(good["train"], good["held_out"], strict=True))
    lazy = nn.LazyLinear(3)
    for changes, said in (
        ({"rows": 0}, "rows must be at least 1"), ({"batch": 0}, "batch must be"), ({"steps": 0}, "steps must be"),
        ({"train": iter(())}, "train must be a tensor, or .* no fixed rows"),
        ({"held_out": (x, 3)}, r"int \('1'\) is none"), ({"held_out": (x[:0], y[:0])}, "held_out is empty"),
        ({"held_out": ()}, "held_out is empty"), ({"train": torch.tensor(1.0)}, "single number"),
        ({"train": (x, y[:-1])}, "119, 120 rows"), ({"train": x}, "not built alike"),
        ({"train": [*good["train"]]}, "not built alike: list of .* and tuple"),
        ({"train": (y, x)}, "0: int64 in 1-d, 1: float32 in 2-d"),
        ({"held_out": spoiled}, "3 held-out rows are also trained on: row 40 is training row 5, row 41 is .*take them"),
        ({"loss_of": lambda m, b: m(b[0])}, r"one element, not shape \(20, 3\)"),
        ({"loss_of": lambda m, b: 1.0}, "one element, not float"),
        ({"model": nn.ReLU()}, "no parameters"), ({"model": lazy}, "lazy parameters"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said) as caught:
            LockstepWatch(**{"model": model, "loss_of": loss_of, "batch": 20, **good, **changes})
        assert "\n" not in str(caught.value)


def test_memory_is_what_did_not_carry_over():
    meter = LockstepMeter()
    assert meter.memory is None
    for step, losses, memory, words in (
        (0, (2.0, 4.0), None, "step 0: training loss 2, held-out 4"),
        (100, (1.96, 4.0), None, "step 100: training loss −2%, held-out 0%: too little to tell"),
        (300, (0.76, 2.76), 0.5, "step 300: training loss −62%, held-out −31%: half of the progress is memory"),
        (400, (0.5, 1.0), 0.0, "step 400: training loss −75%, held-out −75%: none of the progress is memory"),
        (1500, (0.5, 5.0), 1.0, "step 1,500: training loss −75%, held-out +25%: all of the progress is memory"),
    ):
        meter.note(step, *losses)
        assert meter.memory == (memory if memory is None else pytest.approx(memory, abs=1e-9))
        assert meter.line() == words
    assert meter.result().memory == 1.0


def test_memory_begins_where_nothing_more_carries_over():
    """Held-out follows over a share of the way and then stays: nobody is warned before, and soon after."""
    for share in (0.3, 0.6, 0.9):
        meter = LockstepMeter()
        warned = None
        for i, s in enumerate(np.linspace(0, 1, 101)):
            meter.note(i, 3 * (1 - s), 4 * (1 - min(s, share)))
            warned = s if warned is None and meter.memorising_now else warned
        assert share < (warned or math.inf) <= share * (1 + 2 * 0.15) if share < 0.9 else warned is None or warned > 0.9


def test_the_meter_does_not_import_torch():
    code = "import sys, crevasse.integrations.meter; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False)
    if subprocess.run([sys.executable, "-c", "import sys, crevasse; sys.exit('torch' in sys.modules)"]).returncode:
        pytest.skip("crevasse itself imports torch")
    assert done.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 108])
def test_it_warns_before_accuracy_falls_and_is_quiet_where_it_does_not(seed, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import noisy_labels

    noisy = noisy_labels.train(seed, 0.4, rate=5e-4, steps=900, rows=(256,))
    assert noisy.warned[256] < noisy.fell
    assert noisy.at(noisy.warned[256]) > noisy.accuracy[-1] + 0.05
    assert noisy_labels.train(seed, 0.0, rate=5e-4, steps=900, rows=(256,)).warned == {256: None}


@pytest.mark.slow
@pytest.mark.parametrize("stop", [True, False])
def test_the_trainer_stops_on_request(stop, tmp_path):
    """Random answers to letters: nothing carries over once the look of an answer is learnt."""
    from finetune import CHARACTERS, make_model
    from finetune import train as fine_tune
    from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq

    from crevasse.integrations.trainer import LockstepCallback

    folder = make_model(tmp_path / "model", width=64, seed=3)
    tokenizer, rng = AutoTokenizer.from_pretrained(folder), random.Random(1)
    asked = ["".join(rng.choices(CHARACTERS[:26], k=4)) for _ in range(200)]
    pairs = [(tokenizer(w)["input_ids"], tokenizer(rng.choice("abcd"))["input_ids"]) for w in dict.fromkeys(asked)]
    rows = [{"input_ids": q + a, "labels": [-100] * len(q) + a} for q, a in pairs]
    callback = LockstepCallback(rows[:100], rows[100:], every=5, stop=stop)
    model = AutoModelForCausalLM.from_pretrained(folder)
    trainer = fine_tune(model, rows[:100], tmp_path / "out", callbacks=[callback], max_steps=150, learning_rate=1e-3,
                        per_device_train_batch_size=50, collator=DataCollatorForSeq2Seq(tokenizer))  # fmt: skip
    assert trainer.state.global_step == callback.meter.readings[-1].step
    assert (trainer.state.global_step < 150) == stop
    first = LockstepMeter()
    for reading in callback.meter.readings:
        first.note(*reading)
        if first.memorising_now:
            break
    assert first.memorising_now and (first.readings[-1].step == trainer.state.global_step) == stop
    assert callback.picture.exists()


@pytest.mark.slow
def test_the_example_of_the_docs_runs_and_stops(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "meter-for-pytorch.md").read_text("utf-8")
    code = re.search(r"```python\n(.*?)```", page, flags=re.DOTALL).group(1)
    assert len(re.findall(r"  # \d", code)) == 3
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(code, "example", "exec"), scope)
    watch, said = scope["watch"], capsys.readouterr().out
    assert watch.memorising and watch.count < scope["STEPS"] / 2
    assert "and so is what it learns now" in said
    assert watch.meter.result().verdict in said
    assert Path("meter.html").exists()
    shown = re.search(r"```text\n(.*?)```", page, flags=re.DOTALL).group(1)
    assert [line.split(":")[0] for line in shown.splitlines()[:2]] == [s.split(":")[0] for s in said.splitlines()[:2]]
