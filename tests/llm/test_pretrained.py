"""Pretrained models against transformers' own computation, and trials of them through the laboratory's one loop."""

import copy
import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import make_tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from crevasse import memory, store
from crevasse.api import make_config
from crevasse.documents import Data, Rows, head
from crevasse.errors import UserError
from crevasse.formats.generate import generate, token_limit
from crevasse.models import MODELS, losses
from crevasse.models.base import Needs
from crevasse.passes import Alone, Look
from crevasse.processes import World
from crevasse.rules import RULES, BaseRule, Weights
from crevasse.trial import run_trial

FAMILIES = ["llama", "gpt_neox", "gpt2"]


def config_of(folder, form="direct", rule="adamw:lr=0.01", task="factorial", options="", **fields):
    fields = {"steps": 6, "batch": 7, "train": None, "probe_every": 3, **fields}
    return make_config(task, form, f"pretrained:{folder},dtype=float32{options}", rule, **fields)


def built(config):
    data = Data(config)
    model = config.model.build(data.script.size, data.context)
    model.introduce(data.tokenizer.pieces)
    return data, model


@torch.no_grad()
def whole(model):
    """The same weights in transformers' own model, whose tables were resized for the added tokens."""
    net = copy.deepcopy(model.net)
    inner, outer = net.get_input_embeddings(), copy.deepcopy(model.head)
    net.set_input_embeddings(inner.table)
    net.resize_token_embeddings(inner.known + len(inner.rows), mean_resizing=False)
    for table, part in ((net.get_input_embeddings(), inner), (net.get_output_embeddings(), outer)):
        table.weight.copy_(torch.cat([part.table.weight[: part.known], part.rows]))
    return net


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradient_are_those_of_transformers_itself(tiny, family):
    config = config_of(tiny(family), "trace", task="sum")
    data, model = built(config)
    rows = Rows.of(data.train)
    each, *_ = losses(model, *rows.pick(torch.arange(14)))
    labels = torch.where(rows.loss, rows.tokens.long(), -100)
    theirs = AutoModelForCausalLM.from_pretrained(tiny(family), dtype=torch.float32)
    theirs.resize_token_embeddings(data.script.size, mean_resizing=False)
    with torch.no_grad():
        for table, added in ((theirs.get_input_embeddings(), model.net.get_input_embeddings().rows),
                            (theirs.get_output_embeddings(), model.head.rows)):  # fmt: skip
            table.weight[-len(added) :] = added
    loss = theirs(input_ids=rows.tokens.long(), labels=labels).loss
    torch.testing.assert_close(each.mean(), loss)
    each.mean().backward()
    loss.backward()
    named = dict(theirs.named_parameters())
    for name, p in model.net.named_parameters():
        wanted = named[name.replace(".table.", ".").replace(".rows", ".weight")].grad
        wanted = wanted[-len(p) :] if name.endswith(".rows") else wanted[: len(p)]
        torch.testing.assert_close(p.grad, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["direct", "tool"])
def test_running_freely_writes_what_transformers_writes(tiny, family, form):
    """Batched, with a cache that loses finished rows, against transformers' greedy search one row at a time."""
    data, model = built(config_of(tiny(family), form))
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():  # random weights say one token for ever; larger ones vary
            p.copy_(torch.randn_like(p) * 0.4)
    problems = data.splits.train
    some = head(data.train, 8)
    written = generate(model, data.form, data.script, some, problems.x[:8], rows=3)
    limit = token_limit(some, False) - int(some.prompt.max())
    for row, output in enumerate(written):
        prompt = torch.from_numpy(data.train.tokens[row, : data.train.prompt[row]]).long()[None]
        theirs = (
            whole(model)
            .generate(
                prompt,
                max_new_tokens=limit,
                do_sample=False,
                eos_token_id=data.tokenizer.end,
                pad_token_id=data.tokenizer.end,
            )[0, prompt.shape[1] :]
            .tolist()
        )
        call = data.script.marks[2]
        first_call = theirs.index(call) if form == "tool" and call in theirs else len(theirs)
        until = min(first_call + 1, limit, len(theirs))  # what follows a call is the calculator's
        assert len(output.tokens) >= until > 0
        assert list(output.tokens[:until]) == theirs[:until]


@pytest.mark.parametrize("options", ["", ",lora=4", ",checkpointing=true", ",lora=4,checkpointing=true"])
@pytest.mark.parametrize("family", FAMILIES)
def test_parts_and_recomputed_layers_change_memory_and_not_the_gradient(tiny, family, options):
    config = config_of(tiny(family), "trace", options=options)
    data = Data(config)
    rows = Rows.of(data.train)
    found = []
    for chunk, checkpointing in ((0, False), (200, config.model.checkpointing)):
        torch.manual_seed(0)
        model = dataclasses.replace(config.model, checkpointing=checkpointing).build(data.script.size, data.context)
        for p in model.parameters():  # adapters begin at zero
            if p.requires_grad and not p.any():
                torch.nn.init.normal_(p, std=0.1)
        alone = Alone(model, Weights(model), chunk, World())
        found.append(alone.look(Look(rows, (torch.arange(14),), slopes=True)))
    torch.testing.assert_close(found[0].losses, found[1].losses)
    torch.testing.assert_close(found[0].gradients, found[1].gradients, rtol=1e-3, atol=1e-6)
    assert found[0].gradients.abs().max() > 0


def test_a_new_token_begins_as_the_mean_of_the_pieces_it_was_written_in(tiny):
    data, model = built(config_of(tiny("gpt_neox"), "tool"))
    before = AutoModelForCausalLM.from_pretrained(tiny("gpt_neox"))
    pieces = AutoTokenizer.from_pretrained(tiny("gpt_neox")).encode("<multiply>", add_special_tokens=False)
    for theirs, ours in ((before.get_input_embeddings(), model.net.get_input_embeddings()),
                         (before.get_output_embeddings(), model.head)):  # fmt: skip
        torch.testing.assert_close(ours.rows[data.script.marks[2] - ours.known], theirs.weight[pieces].mean(0))
        torch.testing.assert_close(ours.table.weight, theirs.weight)


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_begin_as_nothing_and_added_tokens_as_without_them(tiny, family):
    said = []
    for options in ("", ",lora=4"):
        data, model = built(config_of(tiny(family), "tool", options=options))
        with torch.no_grad():
            said.append(losses(model, *Rows.of(data.train).pick(torch.arange(14)))[1])
    torch.testing.assert_close(*said)


def test_lora_moves_its_adapters_and_nothing_else(tiny, tmp_path):
    record = run_trial(config_of(tiny(), options=",lora=4"), tmp_path)
    whole = run_trial(config_of(tiny()), tmp_path)
    assert 0 < record["result"]["parameters"] < whole["result"]["parameters"]
    kept = load_file(tmp_path / "trials" / record["id"] / store.WEIGHTS)["weights"]
    assert len(kept) == record["result"]["parameters"]


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"file", "race", "invariant"}))
def test_every_rule_of_the_laboratory_trains_a_language_model(tiny, tmp_path, rule):
    made = RULES.parse(rule)
    config = config_of(tiny(), rule=rule, steps=5, batch=8, chunk=60, steer=3 * made.steers)
    result = run_trial(config, tmp_path)["result"]
    assert result["steps"] == 5
    if isinstance(made, BaseRule):
        assert result["passes"] == 10
    assert result["moved_steps"] > 0


def test_a_language_model_memorises_the_thesis_pairs_and_is_judged_like_any_other(tiny, tmp_path):
    config = config_of(tiny(), rule="adamw:lr=0.01", steps=300, batch=14, probe_every=50)
    result = run_trial(config, tmp_path)["result"]
    assert result["train"] == 1.0
    assert result["splits"] == {"interpolation": 0.0, "extrapolation": 0.0}
    assert result["faults"]["train"] == {}
    assert result["faults"]["interpolation"] == {"answer": 5}
    assert 0 < result["padding"] < 0.5
    assert {o["problem"] for o in result["outputs"]["extrapolation"]} == {f"{n}!=" for n in range(20, 25)}


def test_a_model_is_judged_as_it_is_and_with_solved_problems_before_it(tiny, tmp_path):
    for form in ("direct", "direct:shots=3,instructions=true"):
        record = run_trial(config_of(tiny(), form, steps=0), tmp_path)
        result = record["result"]
        assert record["status"] == "done"
        assert (result["steps"], result["passes"], result["memory"]) == (0, 0, None)
        assert not any("filtered out" in n for n in result["notes"])
        assert any("solved training problems" in n for n in result["notes"]) == ("shots" in form)
    with pytest.raises(UserError, match="steps=0"):
        config_of(tiny(), "direct:shots=3")


@pytest.mark.parametrize("options", [",lora=4"])  # whole models go the same way, and take as long again
def test_a_fine_tune_that_is_cut_off_ends_bitwise_as_one_that_is_not(tiny, tmp_path, options):
    config = config_of(tiny(), "tool", options=options, steps=12, batch=4)
    whole = run_trial(config, tmp_path / "whole")
    cuts = [3, 9]

    def cut(progress):
        if cuts and progress.step == cuts[0]:
            cuts.pop(0)
            raise KeyboardInterrupt

    while cuts:
        with pytest.raises(KeyboardInterrupt):
            run_trial(config, tmp_path / "cut", progress=cut, checkpoint_seconds=0)
    again = run_trial(config, tmp_path / "cut")
    for file in (store.WEIGHTS, store.LEDGER):
        a, b = ((tmp_path / d / "trials" / config.id / file).read_bytes() for d in ("whole", "cut"))
        assert a == b, file
    keep = ("train", "splits", "padding", "passes", "outputs")
    assert {k: whole["result"][k] for k in keep} == {k: again["result"][k] for k in keep}


TOGETHER = """
import sys, json
from pathlib import Path
from crevasse.config import TrialConfig
from crevasse.trial import run_trial
record = run_trial(TrialConfig.from_json(json.loads(sys.argv[1])), Path(sys.argv[2]))
assert record["environment"]["processes"] == 2
"""


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["gaf:threshold=2"])  # at 2 it keeps all: what adamw does, by way of microbatches
def test_two_processes_train_what_one_trains(tiny, tmp_path, rule):
    config = config_of(tiny(), "trace", rule=rule, steps=4, batch=7)
    alone = run_trial(config, tmp_path / "one")
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", script,
         json.dumps(config.to_json()), tmp_path / "two"],
        check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    folders = [tmp_path / d / "trials" / config.id for d in ("one", "two")]
    one, two = (load_file(f / store.WEIGHTS)["weights"] for f in folders)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    together = store.load_trial(folders[1])
    assert together["result"]["passes"] == alone["result"]["passes"]
    ledgers = [store.read_columns(f / store.LEDGER)["loss"] for f in folders]
    np.testing.assert_allclose(*ledgers, rtol=1e-4)


@pytest.mark.slow
def test_the_command_line_runs_under_a_launcher_and_speaks_once(tiny, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", "crevasse.cli",
         "run", "factorial", "--model", f"pretrained:{tiny()},dtype=float32", "--steps", "3", "--batch", "7",
         "--seeds", "2",
         "--out", tmp_path, "--json", "--quiet"],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 2 * 3


def test_memory_is_counted_before_anything_is_loaded_and_too_little_is_refused(tiny, tmp_path, monkeypatch):
    notes = []
    config = config_of(tiny(), "trace", steps=2)
    run_trial(config, tmp_path / "enough", progress=lambda p: notes.append(p.note))
    assert "needs about 0.0 GiB" in notes[0] and "14 documents" in notes[0]
    monkeypatch.setattr(memory, "available", lambda: 1000)
    with pytest.raises(UserError, match="are free; less memory: a smaller chunk"):
        run_trial(config, tmp_path / "none")


def test_the_estimate_counts_what_is_there():
    needs = Needs(weights=1000, trained=100, activations=5000)
    plain = memory.estimate(needs, RULES.parse("sgd"))
    assert (plain.weights, plain.gradients, plain.state, plain.activations) == (4000, 800, 800, 5000)
    assert memory.estimate(needs, RULES.parse("adamw")).state == plain.state + 2 * 400 + 4
    assert memory.estimate(needs, RULES.parse("gaf:k=4,base=sgd")).gradients == 9 * 400
    assert plain.total == 10_600


def test_counting_and_building_agree_on_what_is_trained(tiny):
    for options in ("", ",lora=3"):
        config = config_of(tiny("llama"), options=options)
        _, model = built(config_of(tiny("llama"), "direct", options=options))
        needs = config.model.needs(10, 5)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert needs.trained == trained - model.head.rows.numel()


def test_a_tokenizer_that_merges_digits_is_told_of(tiny, tmp_path):
    for merged in (False, True):
        result = run_trial(config_of(tiny(merge_digits=merged), steps=1), tmp_path)["result"]
        assert any("merges digits" in n for n in result["notes"]) == merged


def test_another_model_is_another_trial_and_a_changed_one_is_refused(tiny, tmp_path):
    one, two = make_tiny(tmp_path / "m"), make_tiny(tmp_path / "n", seed=1)
    a, b = config_of(one), config_of(two)
    assert a.model.digest != b.model.digest
    kept = a.to_json()
    for file in two.iterdir():
        (one / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="has changed since"):
        type(a).from_json(kept)
    assert a.describe().startswith(f"factorial · direct · pretrained:{one} ·"[:-2])
    assert MODELS.parse(f"pretrained:{two},lora=2").lora == 2


def test_what_cannot_be_is_refused_in_one_line(tiny, tmp_path):
    def attempt(*args, **fields):
        run_trial(config_of(*args, **fields), tmp_path)

    for call, needle in (
        (lambda: attempt(tiny(), "direct:notation=digits"), "reads text"),
        (lambda: attempt(tiny(), options=",lora=-1"), "lora is a rank"),
        (lambda: attempt(tiny(), options=",device=cuda"), "no GPU"),
        (lambda: attempt(tiny(), options=",dtype=float16"), "float16"),
        (lambda: attempt(tiny(), "trace", task="factorial:n=1-40,gap=,beyond=41-45"), "reads at most 1024 tokens"),
        (lambda: attempt(tmp_path / "nowhere"), "nowhere"),
        (lambda: MODELS.parse("pretrained:smolm2-135m"), "smollm2-135m"),
        (lambda: MODELS.parse(f"pretrained:lora=2,{tiny()}"), "key=value"),
    ):
        with pytest.raises(UserError) as error:
            call()
        assert needle in str(error.value)
        assert "\n" not in str(error.value)
