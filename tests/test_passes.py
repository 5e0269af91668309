"""Passes over rows: of one trial, and of many at once, against the plain form with logits everywhere."""

import pytest
import torch
from torch.nn import functional as F

from crevasse.documents import Data, Rows
from crevasse.passes import Alone, Look, Stack
from crevasse.processes import World
from crevasse.rules import Weights

MODELS = [
    "transformer:width=16", "transformer:width=16,position=rotary,layers=3", "transformer:width=16,position=none",
    "transformer:width=16,position=first",
    "looped:width=16", "looped:width=16,loops=3,position=rotary", "gru:width=16", "lstm:width=16,layers=2",
    "bilinear:width=16,products=24",
]  # fmt: skip
FORMS = ["direct", "trace"]


class Learner:
    """A config's data and a model of its own."""

    def __init__(self, config):
        self.data = Data(config)
        self.rows = Rows.of(self.data.train)
        torch.manual_seed(config.seed)
        self.model = config.model.build(self.data.script.size, self.data.context, self.data.silent)
        self.weights = Weights(self.model)

    def alone(self, chunk=0):
        return Alone(self.model, self.weights, chunk, World())

    def plain(self, part):
        """Loss, gradient and accuracy of some rows, as everybody writes it."""
        tokens, loss = self.rows.tokens[part].long(), self.rows.loss[part]
        logits = self.model.head(self.model(tokens[:, :-1], self.rows.steps[part]))
        targets = torch.where(loss, tokens, -100)[:, 1:]
        mean = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
        slopes = torch.autograd.grad(mean, list(self.model.parameters()), allow_unused=True)
        pairs = zip(slopes, self.model.parameters(), strict=True)
        flat = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])
        right = (logits.argmax(2) == targets)[targets >= 0].float().mean()
        return mean.detach(), flat, right


def batch(seed, size=24):
    return torch.randperm(120, generator=torch.Generator().manual_seed(seed))[:size]


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", ["iterated-product:p=7,T=1-3,beyond=4", "iterated-product:p=7,T=3,beyond="])
def test_alone_it_is_the_plain_form(small, task, form, model):
    learner = Learner(small(task, form=form, model=model))
    part = batch(0)
    loss, slope, right = learner.plain(part)
    for chunk in (0, 100):
        found = learner.alone(chunk).look(Look(learner.rows, (part,), slopes=True))
        close(found.losses[0], loss)
        close(found.gradients[0], slope)
        found = learner.alone(chunk).look(Look(learner.rows, (part,)))
        close(found.losses[0].float(), loss)
        close(found.accuracy[0], right)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("task", ["iterated-product:p=7,T=1-3,beyond=4", "iterated-product:p=7,T=3,beyond="])
def test_in_a_stack_each_is_what_it_is_alone(small, task, form, model):
    learners = [Learner(small(task, form=form, model=model, seed=s)) for s in range(3)]
    parts = [batch(s) for s in range(3)]
    alone = [x.plain(part) for x, part in zip(learners, parts, strict=True)]
    stack = Stack([x.model for x in learners], [x.weights for x in learners])
    together = stack.look([Look(x.rows, (part,), slopes=True) for x, part in zip(learners, parts, strict=True)])
    read = stack.look([Look(x.rows, (part,)) for x, part in zip(learners, parts, strict=True)])
    for (loss, slope, right), found, seen in zip(alone, together, read, strict=True):
        close(found.losses[0], loss)
        close(found.gradients[0], slope)
        close(seen.losses[0], loss)
        close(seen.accuracy[0], right)


@pytest.mark.parametrize("model", MODELS)
def test_who_stands_beside_it_changes_no_bit(small, model):
    def answers(seeds):
        learners = [Learner(small(form="trace", model=model, seed=s)) for s in seeds]
        stack = Stack([x.model for x in learners], [x.weights for x in learners])
        looks = [Look(x.rows, (batch(s),), slopes=True) for x, s in zip(learners, seeds, strict=True)]
        found = stack.look(looks)
        return {s: (f.losses, f.gradients) for s, f in zip(seeds, found, strict=True)}

    many, few, one = answers(range(5)), answers([3, 1]), answers([3])
    for seed, (loss, slope) in {**few, **one}.items():
        assert torch.equal(loss, many[seed][0])
        assert torch.equal(slope, many[seed][1])
    assert torch.equal(one[3][1], few[3][1])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["part by part", "together", "stacked"])
def test_microbatches_and_other_weights(small, form, model, how):
    learner = Learner(small(form=form, model=model))
    other = learner.weights.flat + 0.1
    if how == "stacked":
        stack = Stack([learner.model], [learner.weights])
    else:
        alone = Alone(learner.model, learner.weights, 0, World(), stacks=how == "together")

    def look(question):
        return stack.look([question])[0] if how == "stacked" else alone.look(question)

    before = learner.weights.flat.clone()
    part = batch(0)
    pieces = tuple(part.split(6))
    found = look(Look(learner.rows, pieces, slopes=True, at=other))
    assert torch.equal(learner.weights.flat, before)
    here = look(Look(learner.rows, (part,), slopes=True))
    assert not torch.allclose(here.gradients[0], found.gradients.mean(0))
    learner.weights.flat.copy_(other)
    for piece, loss, slope in zip(pieces, found.losses, found.gradients, strict=True):
        wanted, gradient, _ = learner.plain(piece)
        close(loss, wanted)
        close(slope, gradient)


def test_a_stack_answers_those_who_ask_something_else_at_the_same_time(small):
    learners = [Learner(small(seed=s)) for s in range(4)]
    expected = [x.plain(batch(s)) for s, x in enumerate(learners)]
    stack = Stack([x.model for x in learners], [x.weights for x in learners])
    looks = [Look(x.rows, (batch(s),), slopes=s % 2 == 0) for s, x in enumerate(learners)]
    for found, (loss, slope, right) in zip(stack.look(looks), expected, strict=True):
        close(found.losses[0], loss)
        if found.gradients is not None:
            close(found.gradients[0], slope)
        else:
            close(found.accuracy[0], right)


def test_those_who_stay_keep_their_weights_when_others_leave(small):
    learners = [Learner(small(seed=s)) for s in range(3)]
    before = [x.weights.flat.clone() for x in learners]
    stack = Stack([x.model for x in learners], [x.weights for x in learners])
    stack.hold([x.weights for x in learners[1:]])
    for x, flat in zip(learners, before, strict=True):
        assert torch.equal(x.weights.flat, flat)
    learners[2].weights.flat.add_(1)
    assert all(
        torch.equal(p, q + 1)
        for p, q in zip(learners[2].model.parameters(), split(before[2], learners[2]), strict=True)
    )
    found = stack.look([Look(x.rows, (batch(0),), slopes=True) for x in learners[1:]])
    close(found[1].losses[0], learners[2].plain(batch(0))[0])


def split(flat, learner):
    parameters = list(learner.model.parameters())
    return [f.view_as(p) for f, p in zip(flat.split([p.numel() for p in parameters]), parameters, strict=True)]
