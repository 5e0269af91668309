"""A small problem with its oracle, computed by torch alone, on which rules are tested."""

from copy import copy
from dataclasses import replace

import torch
from torch import nn

from crevasse.objectives import stablemax_cross_entropy
from crevasse.rules import Cost, Oracle, Seen, Step, Weights, answered
from crevasse.rules.base import copied
from crevasse.seeds import seed_for


class Network(nn.Sequential):
    """A network that can do with fewer hidden units."""

    def axes(self):
        hidden = ("hidden", 5)
        return {"0.weight": (hidden, None), "0.bias": (hidden,), "2.weight": (None, hidden)}


class Problem:
    """Classes of points, by a hidden layer: so many rows to train on, and others that steer, of the same truth."""

    def __init__(self, rows=24, steer=24, seed=0):
        g = torch.Generator().manual_seed(seed)
        self.x = torch.randn(rows + steer, 6, generator=g)
        self.y = (self.x @ torch.randn(6, 3, generator=g)).argmax(1)
        self.steered = torch.arange(rows, rows + steer)
        torch.manual_seed(seed)
        self.module = Network(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
        self.weights, self.cost, self.number = Weights(self.module), Cost(), 0
        self.layout = self.weights.layout
        self.rows = torch.arange(rows)

    def loss(self, rows, labels=None, stablemax=False):
        """Mean cross entropy of some rows at the present weights."""
        objective = stablemax_cross_entropy if stablemax else nn.functional.cross_entropy
        return objective(self.module(self.x[rows]), self.y[rows] if labels is None else labels).mean()

    def answer(self, rows, ask):
        """What the rule asked, computed by torch alone."""
        if ask.window is not None:
            return self.population(rows, ask)
        rows = self.steered if ask.steer else rows
        labels = self.y[rows]
        if ask.swapped:
            g = torch.Generator().manual_seed(seed_for(0, f"labels {self.number}"))
            chosen = torch.rand(len(rows), generator=g) < ask.swapped
            labels = torch.where(chosen, labels.roll(1), labels)
        size = len(rows) // ask.parts
        parts = [slice(i * size, (i + 1) * size) for i in ask.asked]
        with self.weights.at(self.weights.flat if ask.at is None else ask.at):
            losses = [self.loss(rows[p], labels[p], ask.stablemax) for p in parts]
            slopes = [torch.autograd.grad(v, list(self.module.parameters())) for v in losses] if ask.slopes else []
        self.cost.count(ask, size * len(parts))
        gradients = torch.stack([torch.cat([g.flatten() for g in slope]) for slope in slopes]) if slopes else None
        return Seen(torch.stack(losses).detach(), gradients)

    def population(self, rows, ask):
        """Narrow models, each as the whole one with zeros."""
        index, before = self.layout.window(ask.window), copy(self.cost)
        seen = []
        for weights in ask.at:
            whole = torch.zeros(self.layout.size)
            whole[index] = weights
            seen.append(self.answer(rows, replace(ask, window=None, at=whole)))
        self.cost = before
        read = len(self.steered if ask.steer else rows) * len(ask.at)
        self.cost.count(ask, read, len(index) / self.layout.size)
        gradients = torch.stack([s.gradients[0][index] for s in seen]) if ask.slopes else None
        return Seen(torch.cat([s.losses for s in seen]), gradients)

    def ask(self, question, rows=None):
        """question: from an oracle to what it yields."""
        rows = self.rows if rows is None else rows
        return answered(question(Oracle(len(rows), len(self.steered))), lambda ask: self.answer(rows, ask))

    def now(self, scale=1.0):
        return Step(self.layout, scale, self.number, seed=3)

    def start(self, rule):
        """The rule's state before the first step."""
        return rule.init(self.weights.flat, self.layout)

    def update(self, rule, state, scale=1.0, rows=None):
        """What the rule decides, without going there."""
        return self.ask(lambda oracle: rule.update(oracle, self.weights.flat, state, self.now(scale)), rows)

    def step(self, rule, state, scale=1.0, rows=None):
        """One step."""
        update = self.update(rule, state, scale, rows)
        self.weights.flat.copy_(update.weights)
        self.number += 1
        return update

    def train(self, rule, steps, state=None):
        """So many steps. -> the state after them"""
        state = self.start(rule) if state is None else state
        for _ in range(steps):
            state = self.step(rule, state).state
        return state


def same_however_stopped(rule, steps):
    """Stopped at each question and made again from the state of that time, a training is the same. -> its last state

    A trial is stopped at a question, and goes on from a checkpoint with the weights and the state of before.
    """
    whole, broken = Problem(), Problem()
    state, other = whole.start(rule), broken.start(rule)
    names = list(state)
    for _ in range(steps):
        state = whole.step(rule, state).state
        asking, before = rule.update(Oracle(24, 24), broken.weights.flat, other, broken.now()), copied(other)
        ask = next(asking)
        for _ in range(20):
            assert all(torch.equal(other[k], v) for k, v in before.items()), "changed before the last question"
            try:
                ask = asking.send(broken.answer(broken.rows, ask))
            except StopIteration:
                break
        asking.close()
        other = broken.step(rule, before).state
        assert list(other) == names
        assert torch.equal(whole.weights.flat, broken.weights.flat)
        assert all(torch.equal(state[k], other[k]) for k in names)
    return state
