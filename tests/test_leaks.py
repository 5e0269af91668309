"""No rule can reach validation or test: not through what it is handed, not by what it asks, and not in effect."""

import dataclasses
import gc
from typing import ClassVar

import numpy as np
import pytest
import torch

from crevasse import store, trial
from crevasse.documents import Data, Rows
from crevasse.errors import UserError
from crevasse.passes import Look
from crevasse.rules import RULES, Ask, Oracle
from crevasse.rules.sgd import Sgd
from crevasse.trial import run_trial

STEER = 24


def config_of(small, rule, **fields):
    rule = RULES.parse(rule) if isinstance(rule, str) else rule
    steer = STEER if rule.steers else 0
    return dataclasses.replace(small(steps=7, train=96, batch=24, steer=steer, **fields), rule=rule)


def weights_of(root, config):
    return (root / "trials" / config.id / store.WEIGHTS).read_bytes()


class Otherwise(Data):
    """The same problems to train on, other ones to be judged by."""

    also: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config):
        super().__init__(config)
        splits = self.splits
        held_out = {"validation": turned(splits.validation), "tests": {k: turned(v) for k, v in splits.tests.items()}}
        self.splits = dataclasses.replace(
            splits, **held_out, **{name: turned(getattr(splits, name)) for name in self.also}
        )
        self.validation = self.encode(self.splits.validation)
        self.tests = {name: self.encode(p) for name, p in self.splits.tests.items()}


def turned(problems):
    """Each problem with the answer of another."""
    answers = problems.take(np.roll(np.arange(len(problems)), 1)).solution
    return dataclasses.replace(problems, solution=answers)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in RULES if n != "file"])
def test_what_is_held_out_has_no_effect_on_the_weights_of_any_rule(name, tmp_path, small, monkeypatch):
    config = config_of(small, name)
    one = run_trial(config, tmp_path / "one")
    monkeypatch.setattr(trial, "Data", Otherwise)
    other = run_trial(config, tmp_path / "other")
    assert weights_of(tmp_path / "one", config) == weights_of(tmp_path / "other", config)
    curves = [
        store.read_columns(tmp_path / r / "trials" / config.id / store.LEDGER)["held_out_loss"]
        for r in ("one", "other")
    ]
    assert not np.array_equal(*curves), "what is held out was another indeed"
    assert one["result"]["passes"] == other["result"]["passes"]


@pytest.mark.parametrize("name", [n for n in RULES if n != "file" and RULES.parse(n).steers])
def test_what_steers_has_an_effect_so_that_the_test_above_can_fail(name, tmp_path, small, monkeypatch):
    short = {
        "restarts": "restarts:copies=3,each=2",
        "race": "race:cells=8,each=4,refit=0,gain=0,thin=2",
        "starve": "starve:until=0.06,check=1,feed=1,base.lr=0.01",
    }
    config = config_of(small, short.get(name, name))
    run_trial(config, tmp_path / "one")
    monkeypatch.setattr(trial, "Data", Otherwise)
    monkeypatch.setattr(Otherwise, "also", ("steer",))
    run_trial(config, tmp_path / "other")
    assert weights_of(tmp_path / "one", config) != weights_of(tmp_path / "other", config)


@pytest.mark.parametrize("name", [n for n in RULES if n != "file" and RULES.parse(n).steers])
def test_a_rule_that_steers_needs_problems_for_it_and_they_count_as_training(name, tmp_path, small):
    with pytest.raises(UserError, match="steer"):
        small(rule=name)
    config = config_of(small, name)
    result = run_trial(config, tmp_path)["result"]
    assert result["examples"]["train"] == 96 - STEER
    assert result["samples"] > 7 * 24 or name in ("restarts", "starve")  # which ask for losses alone


class Hostile(Sgd):
    """Looks at everything that it can reach through what it is handed, and remembers the shapes of what it found."""

    seen: ClassVar[set] = set()

    @property
    def steers(self):
        return True

    def update(self, oracle, weights, state, step):
        self.look([oracle, weights, state, step])
        for ask in (Ask(), Ask(steer=True), Ask(2, only=(1,)), Ask(swapped=0.5), Ask(slopes=False, at=weights + 1)):
            self.look([(yield ask)])
        update = super().update(oracle, weights, state, step)
        seen = yield next(update)
        self.look([seen])
        try:
            update.send(seen)
        except StopIteration as end:
            return end.value

    def look(self, queue):
        known = set()
        while queue:
            thing = queue.pop()
            if id(thing) in known:
                continue
            known.add(id(thing))
            if isinstance(thing, torch.Tensor | np.ndarray):
                self.seen.add(tuple(thing.shape))
                queue.append(getattr(thing, "_base", None) if isinstance(thing, torch.Tensor) else thing.base)
            elif isinstance(thing, dict | list | tuple | set):
                queue += list(thing.values()) if isinstance(thing, dict) else list(thing)
            elif hasattr(thing, "__dict__"):
                queue += list(vars(thing).values())
            elif hasattr(thing, "__slots__"):
                queue += [getattr(thing, name) for name in thing.__slots__]


def test_what_a_rule_is_handed_leads_to_no_held_out_tensor(tmp_path, small):
    Hostile.seen = set()
    config = config_of(small, Hostile(lr=0.1), held_out=37, probe_rows=19)
    run_trial(config, tmp_path)
    found = Hostile.seen
    parameters = next(s for s in found if len(s) == 1 and s[0] > 100)[0]
    # One number, a vector of weights or of gradients, losses of one or two parts: nothing with a row for each problem.
    assert found <= {(), (1,), (2,), (parameters,), (1, parameters), (2, parameters)}


def asks(question):
    """A rule that asks one thing before it makes its step."""

    class Asks(Sgd):
        def update(self, oracle, weights, state, step):
            yield question(weights) if callable(question) else question
            return (yield from super().update(oracle, weights, state, step))

    return Asks(lr=0.1)


def held_out_look(weights):
    """The strongest attack: a ready-made question about the held-out rows, found in the process itself."""
    for thing in gc.get_objects():
        if isinstance(thing, Rows) and len(thing.tokens) == 19:
            return Look(thing, (torch.arange(19),), True)
    return None


QUESTIONS = {
    "a question that is no question": ("validation", "no Ask"),
    "nothing": (None, "no Ask"),
    "rows of its own": (held_out_look, "no Ask"),
    "weights that are too long": (lambda weights: Ask(at=torch.cat([weights, weights])), "asks at"),
    "too many parts": (Ask(parts=10**6), "parts of a batch"),
    "steer where nothing steers": (Ask(steer=True), "parts of a batch"),
}


@pytest.mark.parametrize("kind", list(QUESTIONS))
def test_a_question_about_anything_else_is_refused(kind, tmp_path, small):
    question, said = QUESTIONS[kind]
    with pytest.raises((TypeError, ValueError), match=said):
        run_trial(config_of(small, asks(question), held_out=37, probe_rows=19), tmp_path)


@pytest.mark.parametrize(
    "made", [{"parts": 0}, {"parts": 2, "only": (2,)}, {"parts": 2, "only": (-1,)}, {"only": ()},
             {"parts": 3, "only": (0, 0)}, {"parts": 3, "only": (1, 0)}, {"swapped": 1.5}],
)  # fmt: skip
def test_a_question_that_cannot_be_is_not_even_made(made):
    with pytest.raises(ValueError, match=r"part|share"):
        Ask(**made)


def test_whatever_is_asked_is_counted(tmp_path, small):
    """Also what a rule yields without the oracle's help."""
    plain = run_trial(config_of(small, Sgd(lr=0.1)), tmp_path / "plain")["result"]
    more = run_trial(config_of(small, asks(Ask(3, only=(0, 2)))), tmp_path / "more")["result"]
    assert plain["passes"] == 14.0
    assert more["passes"] == pytest.approx(14.0 + 7 * 2 * 2 / 3, abs=1e-3)


def test_an_oracle_offers_no_way_to_any_data():
    assert vars(Oracle(24, 8, 6)) == {"batch": 24, "steer": 8, "places": 6}, "sizes, and nothing else"
