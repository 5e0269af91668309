"""The meter in a real Trainer: training is bitwise what it is without, and the verdict is what the data deserve."""

import json
import math
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune import CHARACTERS, arguments, make_model, train
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer

from crevasse.errors import UserError
from crevasse.integrations import LockstepMeter
from crevasse.integrations.trainer import IGNORED, LockstepCallback

DOCS = Path(__file__).resolve().parents[2] / "docs"
LETTERS = CHARACTERS[:26]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), dropout=0.1)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def rows_of(tokenizer, pairs):
    """Problem and answer; only the answer carries loss. A column of text stays beside the tokens."""
    rows = []
    for problem, answer in pairs:
        asked, told = (tokenizer(text)["input_ids"] for text in (problem, answer))
        rows.append({"input_ids": asked + told, "labels": [IGNORED] * len(asked) + told, "problem": problem})
    return rows


def words(seed: int, n: int, lengths=(2, 9)) -> list[str]:
    rng, found = random.Random(seed), {}
    while len(found) < n:
        found["".join(rng.choices(LETTERS, k=rng.randrange(*lengths)))] = None
    return list(found)


@pytest.fixture(scope="module")
def data(tokenizer):
    rows = rows_of(tokenizer, [(w + "=", w[::-1]) for w in words(0, 90)])
    return rows[:70], rows[70:]


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


@pytest.mark.parametrize(
    "over",
    [{}, {"gradient_accumulation_steps": 2, "max_steps": 6}, {"bf16": True}, {"label_smoothing_factor": 0.1}],
    ids=["plain", "accumulated", "mixed", "smoothed"],
)
def test_training_is_bitwise_the_same(over, folder, tokenizer, data, tmp_path):
    class Restless(DataCollatorForSeq2Seq):
        """Draws from every generator that there is, as collators that mask or augment do; so does the model."""

        def __call__(self, features, return_tensors=None):
            draw()
            return super().__call__(features, return_tensors)

    def draw(*_) -> None:
        random.random(), np.random.rand(), torch.rand(())

    ends = []
    for callbacks in ([], [LockstepCallback(*data, rows=10, every=2)]):
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.register_forward_pre_hook(draw)
        train(model, data[0], tmp_path, callbacks=callbacks, collator=Restless(tokenizer), **over)
        ends.append((weights(model), random.random(), np.random.rand(), torch.rand(1).item()))
    assert len(callbacks[0].meter.readings) > 3
    assert all(torch.equal(ends[0][0][k], v) for k, v in ends[1][0].items())
    assert ends[0][1:] == ends[1][1:]


def test_every_module_is_left_in_its_mode(folder, tokenizer, data, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.transformer.h[0].eval()
    collator = DataCollatorForSeq2Seq(tokenizer)
    trainer = Trainer(model, arguments(tmp_path), train_dataset=data[0], data_collator=collator)
    callback = LockstepCallback(*data, rows=4)
    model.train()
    model.transformer.h[0].eval()
    before = [m.training for m in model.modules()]
    loader = trainer.get_train_dataloader()
    callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=model, train_dataloader=loader)
    assert [m.training for m in model.modules()] == before
    assert {True, False} == set(before)


def test_the_loss_is_the_mean_over_all_unmasked_tokens(folder, tokenizer, data, tmp_path):
    """Against cross entropy row by row, without padding; batches of 3 leave means of means behind."""
    callback = LockstepCallback(*data, rows=1000, every=1000)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    expected = []
    for rows in data:
        total, n = 0.0, 0
        for row in rows:
            with torch.no_grad():
                logits = model(torch.tensor([row["input_ids"]])).logits[0, :-1]
            labels = torch.tensor(row["labels"])[1:]
            total += F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum").item()
            n += int((labels != IGNORED).sum())
        expected.append(total / n)
    train(model, data[0], tmp_path, callbacks=[callback], collator=DataCollatorForSeq2Seq(tokenizer),
          per_device_train_batch_size=3, max_steps=1)  # fmt: skip
    first = callback.meter.readings[0]
    assert (first.step, callback.meter.readings[-1].step) == (0, 1)
    assert (first.train_loss, first.held_out_loss) == pytest.approx(expected, abs=1e-5)


def test_the_first_label_is_no_target(folder, tokenizer, tmp_path):
    """Nothing is asked for the first token of a row, so it must not count where rows are weighed."""
    rows = [{"input_ids": t, "labels": t} for t in (tokenizer(w)["input_ids"] for w in ("ab", "abcdefghij"))]
    callback = LockstepCallback(rows, rows_of(tokenizer, [("z", "y")]), every=1000, rows=2)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        losses = [model(**{k: torch.tensor([v]) for k, v in row.items()}).loss.item() for row in rows]
    train(model, rows, tmp_path, callbacks=[callback], collator=DataCollatorForSeq2Seq(tokenizer),
          per_device_train_batch_size=1, max_steps=1)  # fmt: skip
    assert callback.meter.readings[0].train_loss == pytest.approx((losses[0] + 9 * losses[1]) / 10, abs=1e-5)


def test_when_it_reads(folder, tokenizer, data, tmp_path):
    meter = LockstepMeter()
    callback = LockstepCallback(*data, rows=5, every=5, meter=meter)
    for _ in range(2):  # a second training starts anew
        model = AutoModelForCausalLM.from_pretrained(folder)
        train(model, data[0], tmp_path, callbacks=[callback], collator=DataCollatorForSeq2Seq(tokenizer))
        assert [r.step for r in meter.readings] == [0, 5, 10, 12]
    assert callback.picture == tmp_path / "meter.html"
    assert callback.picture.exists()
    assert len((tmp_path / "meter.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("batch", "steps", "rows", "every", "cost"),
    [
        (8, 1500, 64, 150, 0.039),  # 11.25 readings cost 4%
        (8, 100, 64, 15, 0.427),  # 8 readings at the least
        (32, 100_000, 64, 1695, 0.0008),  # 60 at the most
        (1, 1, 1, 1, 4 / 3),
    ],
)
def test_the_pace_is_counted(batch, steps, rows, every, cost):
    callback = LockstepCallback(range(900), range(64), rows=rows)
    callback._set_pace(batch, steps)
    assert callback.every == every
    assert callback.cost == pytest.approx(cost, rel=0.03)


@pytest.mark.parametrize(("batch", "steps"), [(b, s) for b in (4, 16, 64) for s in (2000, 5000, 20_000)])
def test_the_cost_is_kept_where_a_curve_can_be_afforded(batch, steps):
    callback = LockstepCallback(range(900), range(64), rows=32)
    callback._set_pace(batch, steps)
    assert callback.cost <= 0.05


def test_bad_input_is_refused_before_training(folder, tokenizer, data, tmp_path):
    rows, held_out = data
    masked = [row | {"labels": [IGNORED] * len(row["labels"])} for row in held_out]
    for args, options, said in (
        (([], held_out), {}, "the training rows are empty"),
        ((rows, []), {}, "the held-out rows are empty"),
        ((iter(rows), held_out), {}, "the training rows have no length"),
        ((rows, held_out), {"rows": 0}, "rows must be at least 1"),
        ((rows, held_out), {"every": 0}, "every must be at least 1"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            LockstepCallback(*args, **options)
    padded = rows[3] | {"input_ids": [*rows[3]["input_ids"], 0], "attention_mask": [1] * len(rows[3]["labels"]) + [0]}
    spoiled = [*held_out, rows[5], padded, rows[7], rows[9]]
    for bad, said in (
        (masked, "no token of the 20 held-out rows carries loss"),
        (spoiled, r"4 held-out rows are also trained on: row 20 is training row 5 \('.*='?.*\), row 21 .* and 1 more"),
        ([{"input_ids": [5, 6]}], "no labels"),
    ):
        model = AutoModelForCausalLM.from_pretrained(folder)
        before = weights(model)
        with pytest.raises(UserError, match=said):
            train(model, rows, tmp_path, callbacks=[LockstepCallback(rows, bad)], tokenizer=tokenizer,
                  collator=DataCollatorForSeq2Seq(tokenizer))  # fmt: skip
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_the_trainer_drops_columns_and_so_does_the_meter(folder, tokenizer, data, tmp_path):
    """As with a dataset whose columns the trainer takes away before its collator sees them."""
    collator = DataCollatorForSeq2Seq(tokenizer)
    trained_on = [{k: row[k] for k in ("input_ids", "labels")} for row in data[0]]
    callback = LockstepCallback(*data, rows=6)
    model = AutoModelForCausalLM.from_pretrained(folder)
    train(model, trained_on, tmp_path, callbacks=[callback], collator=collator, remove_unused_columns=False)
    assert len(callback.meter.readings) > 2


def test_only_the_first_process_writes(folder, tokenizer, data, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(folder)
    collator = DataCollatorForSeq2Seq(tokenizer)
    callback = LockstepCallback(*data, rows=4)
    trainer = Trainer(model, arguments(tmp_path), train_dataset=data[0], data_collator=collator, callbacks=[callback])
    trainer.state.is_world_process_zero = False
    room = {"model": model, "train_dataloader": trainer.get_train_dataloader()}
    callback.on_train_begin(trainer.args, trainer.state, trainer.control, **room)
    trainer.state.global_step = 3
    callback.on_train_end(trainer.args, trainer.state, trainer.control, **room)
    assert [r.step for r in callback.meter.readings] == [0, 3]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_rule_is_learnt_and_random_answers_are_memorised(tmp_path, tokenizer):
    """The same problems twice. The letters that random answers are drawn from are learnt before, as a pretrained model
    has: what is left to learn is then only by heart."""
    found, collator = {}, DataCollatorForSeq2Seq(tokenizer)
    for name in ("rule", "random"):
        rng = random.Random(1)
        pairs = [(f"{w}?", w[0] if name == "rule" else rng.choice("abcd")) for w in words(2, 460, (3, 4))]
        rows = rows_of(tokenizer, pairs)
        model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / name, width=64, seed=3))
        usual = {"collator": collator, "per_device_train_batch_size": 50, "lr_scheduler_type": "constant"}
        if name == "random":
            train(model, rows[200:], tmp_path / "before", max_steps=20, **usual)
            rows = rows[:200]
        held_out, rows = rows[:100], rows[100:]
        callback = LockstepCallback(rows, held_out, every=10)
        train(model, rows, tmp_path / "out", callbacks=[callback], max_steps=150, **usual)
        found[name] = callback.meter.result()
    assert found["rule"].finding == "learns"
    assert found["random"].finding == "memorises"
    assert found["random"].score < 0 < 0.9 < found["rule"].score


@pytest.mark.slow
def test_the_example_of_the_docs_runs(tmp_path, monkeypatch, capsys):
    page = (DOCS / "meter-for-fine-tuning.md").read_text("utf-8")
    code = re.search(r"```python\n(.*?)```", page, flags=re.DOTALL).group(1)
    assert len(re.findall(r"  # \d", code)) == 5
    for there, here in ((r"^MODEL = .*$", 'MODEL = "model"'), (r"^STEPS = .*$", "STEPS = 30")):
        code, n = re.subn(there, here, code, flags=re.MULTILINE)
        assert n == 1
    monkeypatch.chdir(tmp_path)
    make_model(Path("model"))
    lines = [json.dumps({"problem": f"{a}+{b}=", "answer": str(a + b)}) for a in range(12) for b in range(12)]
    Path("problems.jsonl").write_text("\n".join(lines), "utf-8")
    scope = {}
    exec(compile(code, "example", "exec"), scope)
    result = scope["lockstep"].meter.result()
    assert result.verdict in capsys.readouterr().out
    assert math.isfinite(result.score)
    assert Path("tuned/meter.html").exists()


def test_the_example_without_a_trainer_runs(tmp_path, monkeypatch, capsys):
    page = (DOCS / "meter-for-fine-tuning.md").read_text("utf-8")
    code = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "example", "exec"), {})
    said = re.search(r"# (It learns: .*) …", code).group(1)
    assert capsys.readouterr().out.startswith(said)
