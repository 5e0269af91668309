"""Models that read a prompt at once, against torch's own layers with the same weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from crevasse.documents import Data, Rows
from crevasse.errors import UserError
from crevasse.formats.generate import generate
from crevasse.models import MODELS, losses
from crevasse.passes import Alone, Look, Stack
from crevasse.processes import World
from crevasse.rules import Weights
from crevasse.trial import run_trial

#: Model and task, with room for small stacks.
LEARNERS = [
    ("mlp:width=8,hidden=24", "iterated-product:p=7,T=3,gap=,beyond="),
    ("mlp:width=8,hidden=24,layers=3,embeddings=shared", "iterated-product:p=7,T=3,gap=,beyond="),
    ("conv:channels=4,shades=3", "digits"),
]


def build(text, length, vocabulary=20, silent=4):
    torch.manual_seed(0)
    return MODELS.parse(text).build(vocabulary, length + 1, silent)


def documents(length, rows=6, vocabulary=20):
    """tokens (row, position), the last one the answer, and where there is loss"""
    tokens = torch.randint(4, vocabulary, (rows, length + 1), generator=torch.Generator().manual_seed(1))
    return tokens, torch.arange(length + 1).expand(rows, -1) == length


def assert_same(model, plain, length):
    """Loss and gradients are those of a plain function of (tokens, weights by name)."""
    tokens, loss = documents(length)
    weights = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    logits = plain(tokens[:, :-1], weights) @ weights["head.weight"].T + weights["head.bias"]
    expected = F.cross_entropy(logits, tokens[:, -1] - 4, reduction="none")
    got, _, _ = losses(model, tokens, loss, torch.ones(len(tokens)), first=length - 1)
    torch.testing.assert_close(got, expected)
    have = torch.autograd.grad(got.mean(), list(model.parameters()))
    wanted = torch.autograd.grad(expected.mean(), list(weights.values()))
    for a, b in zip(have, wanted, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("embeddings", ["own", "shared"])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_mlp_is_a_plain_one_over_embeddings_side_by_side(embeddings, layers):
    model = build(f"mlp:width=5,hidden=12,layers={layers},embeddings={embeddings}", 4)

    def plain(tokens, w):
        x = torch.cat([w[f"embed.{i if embeddings == 'own' else 0}.weight"][tokens[:, i]] for i in range(4)], 1)
        for i in range(layers):
            x = torch.clamp(x @ w[f"hidden.{i}.weight"].T + w[f"hidden.{i}.bias"], min=0)
        return x

    assert_same(model, plain, 4)


@pytest.mark.parametrize("side", [8, 5])
def test_the_convolutions_are_torchs_own(side):
    model = build("conv:channels=6,shades=3", side**2)

    def plain(tokens, w):
        x = w["embed.weight"][tokens].view(-1, side, side, 3).permute(0, 3, 1, 2)
        for name in ("first", "second"):
            own = nn.Conv2d(x.shape[1], len(w[f"{name}.bias"]), 3, padding=1)
            kernel = w[f"{name}.weight"].view_as(own.weight)
            x = torch.func.functional_call(own, {"weight": kernel, "bias": w[f"{name}.bias"]}, x).relu()
        return nn.MaxPool2d(2)(x).flatten(1)

    assert_same(model, plain, side**2)


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_embeddings_begin_with_the_stated_length(scale):
    table = build(f"mlp:width=64,scale={scale}", 2, vocabulary=400).embed[1].weight.detach()
    assert float(table.square().sum(1).mean().sqrt()) == pytest.approx(scale, rel=0.05)


class Learner:
    """A config's data and a model of its own."""

    def __init__(self, config):
        self.data = Data(config)
        self.rows = Rows.of(self.data.train)
        torch.manual_seed(config.seed)
        self.model = config.model.build(self.data.script.size, self.data.context, self.data.silent)
        self.weights = Weights(self.model)
        self.parts = torch.randperm(120, generator=torch.Generator().manual_seed(config.seed))[:24].split(8)

    def look(self):
        """Of each microbatch the loss and the gradient."""
        return Look(self.rows, self.parts, slopes=True)

    def alone(self):
        return Alone(self.model, self.weights, 0, World()).look(self.look())


@pytest.mark.parametrize(("model", "task"), LEARNERS)
def test_in_a_stack_each_is_what_it_is_alone_whoever_stands_beside_it(small, model, task):
    def stacked(seeds):
        learners = [Learner(small(task, model=model, seed=s)) for s in seeds]
        found = Stack([x.model for x in learners], [x.weights for x in learners]).look([x.look() for x in learners])
        return dict(zip(seeds, found, strict=True))

    many, one = stacked([0, 1, 2]), stacked([1])
    assert torch.equal(many[1].gradients, one[1].gradients)
    for seed, found in many.items():
        learner = Learner(small(task, model=model, seed=seed))
        shared = Alone(learner.model, learner.weights, 0, World(), stacks=True).look(learner.look())
        alone = learner.alone()
        for other in (found, shared):
            torch.testing.assert_close(other.losses, alone.losses, rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(other.gradients, alone.gradients, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("model", "task", "form"),
    [
        ("mlp", "iterated-product:p=7,T=2-3,gap=,beyond=", "direct"),  # prompts of two lengths
        ("mlp", "iterated-product:p=7,T=3,gap=,beyond=", "trace"),  # answers of several tokens
        ("mlp", "digits", "direct:notation=digits"),
        ("conv", "iterated-product:p=7,T=5,gap=,beyond=", "direct"),  # no square
        ("conv", "iterated-product:p=7,T=3,gap=,beyond=", "direct"),  # nor this: not even four pixels
    ],
)
def test_what_cannot_be_read_at_once_is_refused_in_one_line(small, model, task, form):
    with pytest.raises(UserError, match=f"{model} reads") as error:
        Learner(small(task, form, model)).alone()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["mlp:width=0", "mlp:hidden=0", "mlp:layers=0", "mlp:scale=0", "mlp:embeddings=none", "conv:channels=0",
             "conv:shades=0"],
)  # fmt: skip
def test_impossible_options_are_refused(text):
    with pytest.raises(UserError):
        MODELS.parse(text)


@pytest.mark.parametrize(("model", "task"), LEARNERS)
def test_running_freely_it_writes_what_is_likeliest_after_the_prompt(small, model, task):
    learner = Learner(small(task, model=model))
    data = learner.data
    written = generate(learner.model, data.form, data.script, data.train, data.splits.train.x, rows=50)
    prompts = torch.from_numpy(data.train.tokens[:, :-1]).long()
    states = learner.model(prompts, learner.rows.steps, first=prompts.shape[1] - 1)
    assert [o.tokens for o in written] == [(t,) for t in learner.model.head(states[:, 0]).argmax(1).tolist()]


def test_the_mlp_finds_modular_addition(small, tmp_path):
    config = small(
        "modular:p=23", model="mlp", rule="perp:base.lr=0.01,base.decay=0", steps=200, batch=400, train=400,
        held_out=400, probe_every=50, probe_rows=400,
    )  # fmt: skip
    result = run_trial(config, tmp_path)["result"]
    assert result["splits"]["random"] > 0.9
    assert result["train"] == 1.0


@pytest.mark.slow
def test_the_conv_reads_digits(small, tmp_path):
    config = small("digits", model="conv", rule="adamw:lr=0.003", steps=150, batch=64, train=1400, held_out=180)
    assert run_trial(config, tmp_path)["result"]["splits"]["random"] > 0.9
