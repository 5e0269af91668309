"""Any rule in a real Trainer: what it is elsewhere, resumed bit for bit, with the Trainer's own losses and rates."""

import random
import re
from pathlib import Path

import pytest
import torch
from finetune import CHARACTERS, arguments, make_model
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, Trainer, TrainerCallback

from crevasse.errors import UserError
from crevasse.integrations.optimizer import RuleOptimizer
from crevasse.integrations.rule_trainer import RuleTrainer
from crevasse.integrations.trainer import IGNORED, LockstepCallback
from crevasse.rules import RULES

RATE = 3e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), width=16, layers=1)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def data(tokenizer):
    """Training rows, steer rows, held-out rows. Answers of all lengths, so that means of means are no means."""
    rng, words = random.Random(0), {}
    while len(words) < 96:
        words["".join(rng.choices(CHARACTERS[:26], k=rng.randrange(2, 9)))] = None
    rows = []
    for word in words:
        asked, told = tokenizer(word + "=")["input_ids"], tokenizer(word[::-1])["input_ids"]
        rows.append({"input_ids": asked + told, "labels": [IGNORED] * len(asked) + told})
    return rows[:64], rows[64:80], rows[80:]


@pytest.fixture
def make(folder, tokenizer, data, tmp_path):
    """A trainer, ready to train; `rule=None` makes a plain one."""

    def make(rule, model=None, out="out", optimizers=(None, None), callbacks=(), train=data[0], steer=None, **over):
        model = AutoModelForCausalLM.from_pretrained(folder) if model is None else model
        over = {"max_steps": 4, "logging_strategy": "steps", "logging_steps": 1, "learning_rate": RATE} | over
        how = {
            "train_dataset": train, "data_collator": DataCollatorForSeq2Seq(tokenizer), "callbacks": list(callbacks),
            "optimizers": optimizers, "eval_dataset": data[2],
        }  # fmt: skip
        if rule is None:
            return Trainer(model, arguments(tmp_path / out, **over), **how)
        return RuleTrainer(model, arguments(tmp_path / out, **over), rule=rule, steer_dataset=steer, **how)

    return make


def trained(trainer, **how):
    trainer.train(**how)
    return trainer


def weights(trainer):
    return {k: v.detach().clone() for k, v in trainer.model.named_parameters() if v.requires_grad}


def logged(trainer, key="loss"):
    return [line[key] for line in trainer.state.log_history if key in line]


def assert_same(one, other, **tolerance):
    for (name, a), b in zip(one.items(), other.values(), strict=True):
        if tolerance:
            torch.testing.assert_close(a, b, **tolerance, msg=lambda m, name=name: f"{name}: {m}")
        else:
            assert torch.equal(a, b), name


#: At its defaults nothing of what these remember would show in a few steps.
SOON = {"gaf": "gaf:threshold=1.5", "jump": "jump:every=3,repair=2", "restarts": "restarts:copies=3,each=1"}


@pytest.mark.parametrize("name", [n for n in RULES if n not in ("file", "race", "invariant")])
def test_every_rule_trains_and_goes_on_bitwise_where_it_stopped(name, make, data):
    """With the clipping that a Trainer has anyway; a rule that steers is given rows that do."""
    rule = SOON.get(name, name)
    over = {"steer": data[1] if RULES.parse(rule).steers else None, "save_strategy": "steps", "save_steps": 2}
    whole = make(rule, out="whole", **over)
    before = weights(whole)
    whole.train()
    assert whole.state.global_step == whole.rule_optimizer.number == 4
    assert all(0 < loss < 10 for loss in logged(whole))
    assert all(v.isfinite().all() for v in weights(whole).values())
    assert not all(torch.equal(before[k], v) for k, v in weights(whole).items())
    rest = make(rule, out="rest", **over)
    rest.train(resume_from_checkpoint=str(Path(whole.args.output_dir) / "checkpoint-2"))
    assert_same(weights(whole), weights(rest))
    assert logged(whole)[2:] == logged(rest)[-2:]
    with whole.rule_optimizer.judged(), rest.rule_optimizer.judged():
        assert_same(weights(whole), weights(rest))


#: Rules that do nothing at this setting.
NOTHING = ["sam:rho=0", "gaf:threshold=2", "grokfast:lamb=0", "gaf:threshold=2,k=4,base=clip,base.norm=1e6"]


@pytest.mark.parametrize(
    "over",
    [
        {},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4},
        {"max_grad_norm": 0.3, "weight_decay": 0.1},
    ],
    ids=["plain", "accumulated", "clipped"],
)
@pytest.mark.parametrize("rule", NOTHING)
def test_a_rule_that_does_nothing_leaves_the_trainer_as_it_is(rule, over, make, data):
    """The same weights, losses and rates. Rows of one length: microbatches weigh tokens and not rows by themselves."""
    rows = [r for r in data[0] if sum(x != IGNORED for x in r["labels"]) == 4] * 4
    plain, ours = trained(make(None, train=rows, **over)), trained(make(rule, train=rows, **over))
    assert_same(weights(plain), weights(ours), rtol=1e-3, atol=1e-5)
    assert logged(ours) == pytest.approx(logged(plain), abs=2e-4)
    assert logged(ours, "learning_rate") == logged(plain, "learning_rate")
    assert logged(ours, "train_loss") == pytest.approx(logged(plain, "train_loss"), abs=2e-4)


def test_the_loss_of_accumulated_batches_is_the_mean_over_all_their_targets(make):
    """As the Trainer's own, for rows of all lengths: not the mean of the batches' means."""
    over = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "label_smoothing_factor": 0.1}
    for change in ({}, over):
        how = over | {"label_smoothing_factor": 0.0} | change
        plain, ours = trained(make(None, **how)), trained(make("sam:rho=0", **how))
        assert logged(ours) == pytest.approx(logged(plain), abs=2e-4)
        assert_same(weights(plain), weights(ours), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rule", ["sam:rho=0.05", "gaf:threshold=1.2", "label-noise:p=0.5", "crossfit"])
def test_in_a_trainer_a_rule_is_what_it_is_in_a_loop(rule, make, folder, tokenizer, data):
    """Batches in the order of the rows, a plain AdamW and no schedule."""
    rows = sorted(data[0], key=lambda r: len(r["labels"]))
    model, ours = AutoModelForCausalLM.from_pretrained(folder), make(
        rule, train=rows, train_sampling_strategy="sequential", lr_scheduler_type="constant", max_grad_norm=0.0,
    )  # fmt: skip
    ours.train()
    optimizer = RuleOptimizer(rule, model, torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.0), seed=1)
    for i in range(4):
        batch = DataCollatorForSeq2Seq(tokenizer)(rows[8 * i : 8 * i + 8])
        for look in optimizer.looks(dict(batch)):
            look.backward(model(**look.batch).loss)
    torch.testing.assert_close(
        torch.cat([p.flatten() for p in weights(ours).values()]), torch.cat([p.flatten() for p in model.parameters()]),
        rtol=1e-3, atol=1e-5,
    )  # fmt: skip
    assert ours.rule_optimizer.cost == optimizer.cost


@pytest.mark.parametrize(("rule", "accumulated"), [("sam:rho=0.05", 2), ("gaf:threshold=1.5", 3), ("grokfast", 3)])
def test_a_training_of_accumulated_batches_goes_on_bitwise(rule, accumulated, make, data):
    over = {"save_strategy": "steps", "save_steps": 2, "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": accumulated, "max_steps": 5}  # fmt: skip
    whole = trained(make(rule, out="whole", **over))
    rest = make(rule, out="rest", **over)
    rest.train(resume_from_checkpoint=str(Path(whole.args.output_dir) / "checkpoint-2"))
    assert_same(weights(whole), weights(rest))
    assert logged(whole)[2:] == logged(rest)[-3:]


@pytest.mark.parametrize("rule", ["lion", "muon", "gaf:threshold=2,base=lion", "grokfast:base=sgd", "sgld", "adamw"])
def test_the_rate_is_that_of_the_arguments_and_follows_their_schedule(rule, make):
    """A base that moves by itself. At a rate of zero, in the first step of a warm-up, nothing moves at all."""
    trainer = make(rule, warmup_steps=2, max_steps=3)
    start, seen = weights(trainer), []

    class Noting(TrainerCallback):
        def on_step_end(self, *_, **__):
            seen.append(weights(trainer))

    trainer.add_callback(Noting())
    trainer.train()
    assert_same(start, seen[0])
    assert not all(torch.equal(start[k], v) for k, v in seen[1].items())
    optimizer = trainer.rule_optimizer
    own = trainer.rule
    while hasattr(own, "base"):
        own = own.base
    assert optimizer._now().scale * own.lr == pytest.approx(optimizer.param_groups[0]["lr"])
    assert logged(trainer, "learning_rate")[1] == pytest.approx(RATE / 2)


def test_lion_moves_every_weight_by_the_rate_of_the_arguments(make):
    trainer = make("lion", max_steps=1, learning_rate=0.01, lr_scheduler_type="constant", max_grad_norm=0.0)
    before = weights(trainer)
    trainer.train()
    for name, after in weights(trainer).items():
        moved = (after - before[name]).abs()
        assert moved[moved > 1e-4].numpy() == pytest.approx(0.01, rel=0.05)  # what had no gradient only decays


def test_mixed_precision_runs_in_every_look(make):
    seen = []
    trainer = make("sam:rho=0.05", bf16=True)
    trainer.model.lm_head.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    trainer.train()
    assert seen == [torch.bfloat16] * 8
    assert all(v.dtype == torch.float32 for v in weights(trainer).values())
    exact = trained(make("sam:rho=0.05"))
    assert logged(trainer) == pytest.approx(logged(exact), abs=0.05)


@pytest.mark.parametrize("rule", ["gaf:threshold=1.5", "muon", "grokfast"])
def test_adapters_alone_move(rule, make, folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True))
    trainer = make(rule, model=adapted, save_strategy="steps", save_steps=2)
    start = weights(trainer)
    trainer.train()
    assert all("lora" in k for k in start)
    assert not any(torch.equal(start[k], v) for k, v in weights(trainer).items() if "lora_B" in k)
    now = {k.removeprefix("base_model.model.").replace("base_layer.", ""): v for k, v in adapted.state_dict().items()}
    assert all(torch.equal(now[k], v) for k, v in before.items())


def test_the_meter_beside_it_changes_nothing(make, data):
    plain = trained(make("sam:rho=0.05", max_steps=8))
    callback = LockstepCallback(data[0], data[2], rows=8, every=2)
    read = trained(make("sam:rho=0.05", max_steps=8, callbacks=[callback]))
    assert_same(weights(plain), weights(read))
    assert [r.step for r in callback.meter.readings] == [0, 2, 4, 6, 8]


def test_what_is_evaluated_is_the_average(make):
    trainer = trained(make("ema:decay=0.9", max_steps=8, learning_rate=0.03))
    moving, found = weights(trainer), trainer.evaluate()["eval_loss"]
    assert_same(moving, weights(trainer))
    with trainer.rule_optimizer.judged():
        expected = Trainer.evaluation_loop(trainer, trainer.get_eval_dataloader(), "").metrics["eval_loss"]
    assert found == pytest.approx(expected)
    assert found != pytest.approx(
        Trainer.evaluation_loop(trainer, trainer.get_eval_dataloader(), "").metrics["eval_loss"]
    )


def test_a_batch_that_cannot_be_dealt_out_is_cut(make):
    """3 batches to 2 microbatches: each is halved, and the six halves are dealt out."""
    trainer = trained(
        make("gaf:threshold=1.5", gradient_accumulation_steps=3, per_device_train_batch_size=2, max_steps=2)
    )
    assert trainer.rule_optimizer.cost.forward_rows == 2 * 3 * 2


def test_your_own_optimizer_is_the_base(make, folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    trainer = trained(make("gaf:threshold=2", model=model, optimizers=(torch.optim.SGD(model.parameters(), 0.1), None)))
    assert logged(trainer, "learning_rate")[0] == 0.1
    assert trainer.rule_optimizer.number == 4


def test_a_trainer_can_train_twice(make):
    trainer = trained(trained(make("gaf:threshold=1.5", max_steps=2)))
    assert trainer.rule_optimizer.number == 4


def test_a_checkpoint_of_another_rule_is_refused(make):
    trainer = trained(make("sam:rho=0.05", save_strategy="steps", save_steps=2))
    other = make("sam:rho=0.1")
    with pytest.raises(UserError, match="this state is of the rule sam:"):
        other.train(resume_from_checkpoint=str(Path(trainer.args.output_dir) / "checkpoint-2"))


def test_what_does_not_fit_is_refused_before_training(make, data, folder):
    rows, steer, _ = data
    model = AutoModelForCausalLM.from_pretrained(folder)
    given = {"model": model, "optimizers": (torch.optim.SGD(model.parameters(), 0.1), None)}
    for rule, how, said in (
        ("sam:rho=0.05,base.lr=0.01", {}, "the learning rate is 0.01 in the rule and 0.003 in the arguments"),
        ("sam:base.lr=0.003", {"learning_rate": 0.1}, "the learning rate is 0.003 in the rule and 0.1"),
        ("muon:lr=0.02", {}, "the learning rate is 0.02 in the rule and 0.003 in the arguments"),
        ("lion", {"weight_decay": 0.3}, "weight_decay of the arguments is 0.3, but lion moves by itself with decay"),
        ("gaf:base=lion", given, "the base of gaf is your own optimizer: leave lion and its settings out"),
        ("lion", given, "lion is itself what moves the weights: leave optimizers= out"),
        ("reweight", {}, "reweight needs rows that steer: steer_dataset="),
        ("sam", {"steer": steer}, "sam asks for no steer_dataset"),
        ("reweight", {"steer": []}, "steer_dataset must have rows and a length"),
        ("reweight", {"steer": iter(steer)}, "steer_dataset must have rows and a length"),
        ("reweight", {"steer": [*steer, rows[5]]}, "1 rows of steer_dataset are also trained on: row 16"),
        ("ema", {"load_best_model_at_end": True, "eval_strategy": "no", "save_strategy": "no"}, "ema is judged by"),
        ("gaf:k=4", {"train": rows[:19]}, "last batch of an epoch has 3 rows, which gaf would have to cut into 4"),
        ("gaf:k=4", {"per_device_train_batch_size": 3, "max_steps": 99, "dataloader_drop_last": True}, "has 3 rows"),
        ("perp:stablemax=true", {}, "stablemax of perp is a loss, and yours to choose"),
        ("gav", {}, "unknown rule 'gav'; did you mean 'gaf'"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            make(rule, **how).train()
    make("gaf:k=4", train=rows[:19], max_steps=2).train()  # the end of the epoch is never seen
    make("gaf:k=4", train=rows[:19], dataloader_drop_last=True).train()


def test_fp16_and_several_processes_are_refused(make, monkeypatch):
    trainer = make("sam")
    monkeypatch.setattr(trainer.args, "fp16", True)
    with pytest.raises(UserError, match="fp16 needs a gradient scaler"):
        trainer._refuse([trainer.rule])
    monkeypatch.setattr(trainer.args, "fp16", False)
    monkeypatch.setattr(type(trainer.args), "world_size", 2)
    with pytest.raises(UserError, match="sam looks more than once, which needs one process"):
        trainer._refuse([trainer.rule])


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).resolve().parents[2] / "docs" / "rules-in-your-training.md").read_text("utf-8")
    [code] = [c for c in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "RuleTrainer" in c]
    code, n = re.subn(r"^MODEL = .*$", 'MODEL = "model"', code, flags=re.MULTILINE)
    assert n == 1
    monkeypatch.chdir(tmp_path)
    make_model(Path("model"))
    exec(compile(code, "example", "exec"), {})
    assert "in the last step" in capsys.readouterr().out
    assert Path("tuned/checkpoint-20/optimizer.pt").exists()
