"""The study of published results: its grids, how it decides on evidence made up, and how more loops are measured."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from crevasse.config import TrialConfig
from crevasse.documents import Data
from crevasse.errors import UserError
from crevasse.judgement import judge
from crevasse.solutions import constructed
from crevasse.studies import BUDGETS, STUDIES, decide
from crevasse.studies.base import arm
from crevasse.studies.published.base import Evidence, word
from crevasse.studies.published.grokking import Grokking53, epochs_of
from crevasse.studies.published.lengths import CycleLengths, ParityLengths
from crevasse.studies.published.looping import SERIES, TIMES, LoopedParity, Overlooping, looped_longer
from crevasse.studies.published.reversing import Reversing
from crevasse.studies.published.study import RESULTS
from crevasse.tasks import TESTS

STUDY = STUDIES.parse("published")


# --- the grids --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", BUDGETS)
def test_names_are_unique_every_config_can_be_made_and_the_papers_number_is_shown(budget):
    arms = STUDY.arms(budget)
    assert max(Counter(a.name for a in arms).values()) == 1
    assert all(TrialConfig.from_json(c.to_json()) == c for a in arms for c in a.trials())
    assert all("(paper" in a.title for a in arms)
    papers = {r.key: r.paper for r in RESULTS}
    assert all(papers[a.name.split("/")[0]] in a.group for a in arms)
    assert {a.seeds for a in arms} == {1 if budget == "smoke" else 3}
    assert all(c.seed > 0 for a in arms for c in a.trials()), "settings were picked on seed 0"


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_result_has_arms_but_the_large_table_only_at_full(budget):
    there = {a.name.split("/")[0] for a in STUDY.arms(budget)}
    assert {r.key for r in RESULTS} - there == (set() if budget == "full" else {"grokking-113"})


def test_full_repeats_the_settings_of_the_papers():
    full = {a.name: a.config for a in STUDY.arms("full")}
    for name in ("parity/gru", "parity/lstm", "cycle/transformer"):
        assert max(full[name].task.train_sizes) == 40
        assert (min(full[name].task.beyond_sizes), max(full[name].task.beyond_sizes)) == (41, 100)
    for name, p, share in (("grokking-53/adamw", 53, 0.5), ("grokking-113/adamw", 113, 0.3)):
        assert full[name].train == full[name].batch, "a step is not an epoch"
        pairs = np.argwhere(np.random.default_rng(p).random((p, p)) < share)  # drawn as the papers draw them
        sums = np.zeros((p, p), dtype=bool)
        sums[pairs[:, 0], pairs[:, 1]] = sums[pairs[:, 1], pairs[:, 0]] = True
        assert full[name].train / p**2 == pytest.approx(sums.mean(), abs=0.02)
        assert full[name].rule.decay == 1
    assert full["reversed/reversed-2500"].train == full["reversed/plain-2500"].train == 2500
    looped = full["looped/parity"]
    assert (max(looped.task.train_sizes), min(looped.task.beyond_sizes)) == (20, 40)
    assert (looped.model.position, looped.model.loops) == ("first", 0)


@pytest.mark.parametrize("budget", BUDGETS)
def test_more_loops_are_given_to_the_very_trials_of_the_looped_parity(budget):
    ids = {a.name: [c.id for c in a.trials()] for a in STUDY.arms(budget)}
    assert ids["looped/parity"] == ids["overlooping/parity"]


def test_some_results_alone_are_the_same_arms():
    some = STUDIES.parse("published:only=parity+reversed").arms("minutes")
    assert some == [a for a in STUDY.arms("minutes") if a.name.startswith(("parity/", "reversed/"))]
    with pytest.raises(UserError, match="did you mean 'parity'"):
        STUDIES.parse("published:only=parrity").arms("smoke")
    with pytest.raises(UserError, match="at full it is"):
        STUDIES.parse("published:only=grokking-113").arms("minutes")


# --- the decision -----------------------------------------------------------------------------------------------------


def rows(key, seeds=3, status="done", curves=None, **arms):
    """Rows of evidence; arms: name -> its scores by split, the same in each seed or a list."""
    found = []
    for name, splits in arms.items():
        for seed in range(seeds):
            mine = {k: v[seed] if isinstance(v, list) else v for k, v in splits.items()}
            steps, train, held = curves[seed] if curves else ([], [], [])
            found.append({
                "arm": f"{key}/{name.replace('_', '-')}", "seed": seed, "status": status,
                **{t: mine.get(t) for t in TESTS}, "curve_step": steps, "curve_train_exact": train,
                "curve_held_out_exact": held,
            })  # fmt: skip
    return found


def said(result, found, measures=()):
    return word(result.checks(Evidence(found, measures)))


def check(agrees, contrast=False):
    return {"agrees": agrees, "contrast": contrast}


def test_a_contrast_that_agrees_repeats_nothing_by_itself():
    assert word([check(True), check(True, contrast=True)]) == "repeated"
    assert word([check(True), check(False, contrast=True)]) == "in part"
    assert word([check(True), check(False)]) == "in part"
    assert word([check(False), check(True, contrast=True)]) == "not repeated"
    assert word([check(False), check(False)]) == "not repeated"


def test_longer_problems():
    def came(gru, lstm, transformer):
        scores = {"gru": gru, "lstm": lstm, "transformer": transformer}
        return rows("parity", **{name: {"extrapolation": v} for name, v in scores.items()})

    assert said(ParityLengths(), came(1.0, 0.995, 0.52)) == "repeated"
    assert said(CycleLengths(), came(1.0, 0.995, 0.21)) == "in part"
    assert said(CycleLengths(), came(1.0, 0.995, 0.62)) == "repeated"
    assert said(ParityLengths(), came(1.0, 0.5, 0.5)) == "in part"
    assert said(ParityLengths(), came(0.5, 0.5, 0.5)) == "not repeated"
    # One lucky seed of three is not enough, though it is told.
    lucky = came([1.0, 0.5, 0.5], 0.5, 0.5)
    assert said(ParityLengths(), lucky) == "not repeated"
    first = ParityLengths().checks(Evidence(lucky, []))[0]
    assert first["best"] == 1.0 and first["ours"]["n"] == 3
    assert first["ours"]["mean"] == pytest.approx(2 / 3) and first["ours"]["low"] == 0.5
    diverged = rows("parity", status="diverged", gru={}, lstm={}, transformer={})
    assert said(ParityLengths(), diverged) == "not repeated"


def test_grokking_is_late_and_near_the_papers_epoch():
    def came(*found):
        """(epoch of training, epoch of held-out or none) a seed"""
        steps = np.arange(0, 3300, 20)
        curves = [
            (steps, np.where(steps >= train, 1.0, 0.0), np.where(steps >= (held or 9999), 0.95, np.nan))
            for train, held in found
        ]
        return rows("grokking-53", curves=[tuple(map(list, c)) for c in curves], adamw={})

    one = came((200, 1600), (200, 1700), (200, 1500))
    assert [epochs_of(r) for r in one] == [(200, 1600), (200, 1700), (200, 1500)]
    assert said(Grokking53(), one) == "repeated"
    assert said(Grokking53(), came((200, 500), (200, 500), (200, 500))) == "in part"  # late, but far sooner
    assert said(Grokking53(), came((200, 1600), (200, 1600), (200, None))) == "in part"  # a seed never does
    assert said(Grokking53(), came((400, 500), (400, 500), (400, 500))) == "not repeated"  # at once with training
    assert said(Grokking53(), came((200, None), (200, None), (200, None))) == "not repeated"


def test_reversed_sums():
    def came(ours, plain, more=None):
        arms = {"reversed-2500": ours, "plain-2500": plain} | ({} if more is None else {"plain-10000": more})
        return rows("reversed", **{name: {"random": v} for name, v in arms.items()})

    assert said(Reversing(), came(0.99, 0.6)) == "repeated"
    assert said(Reversing(), came(0.99, 0.6, 0.8)) == "repeated"
    assert said(Reversing(), came(0.99, 0.6, 0.6)) == "in part"
    assert said(Reversing(), came(0.99, 0.6, 0.97)) == "in part"
    assert said(Reversing(), came(0.99, 0.99)) == "in part"
    assert said(Reversing(), came(0.8, 0.6)) == "not repeated"


def test_loops_on_longer_words():
    def came(random, longer):
        return rows("looped", parity={"random": random, "extrapolation": longer})

    assert said(LoopedParity(), came(1.0, 0.97)) == "repeated"
    assert said(LoopedParity(), came(0.9, 0.97)) == "in part"
    assert said(LoopedParity(), came(1.0, 0.5)) == "not repeated"


def test_more_loops_can_only_lose_what_was_there():
    def came(*by_times):
        measures = [
            {"claim": "overlooping", "version": 1, "series": SERIES, "label": "random", "seed": seed, "x": float(times),
             "value": value}
            for times, values in zip(TIMES, by_times, strict=True) for seed, value in enumerate(values)
        ]  # fmt: skip
        return said(Overlooping(), rows("overlooping", parity={}), measures)

    assert came([1, 1, 1], [0.8, 0.8, 0.8], [0.5, 0.6, 0.5]) == "repeated"
    assert came([1, 1, 1], [1, 1, 1], [0.5, 0.6, 0.5]) == "in part"
    assert came([1, 1, 1], [1, 1, 1], [1, 1, 0.95]) == "not repeated"
    assert came([0.7, 0.7, 0.7], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]) == "not repeated"


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_verdict_has_a_word_for_each_result_and_counts_them(budget):
    found = [
        {
            "arm": a.name, "title": a.title, "group": a.group, "seed": c.seed, "status": "diverged", "phase": "test",
            "trial": c.id, "config": json.dumps(c.to_json()),
            "task": "t", "format": "f", "model": "m", "rule": "r", "examples": 1, "steps": 1, "chance": 0.1,
            "lockstep": None, "s_max": 0.0, "memorising": None, "passes": 1.0, "samples": 1, "seconds": 1.0,
            "notes": "[]", "faults": "{}",
        }
        for a in STUDY.arms(budget) for c in a.trials()
    ]  # fmt: skip
    verdict = decide(STUDY, budget, found)
    count = 7 if budget == "full" else 6
    assert len(verdict["published"]) == count
    assert {p["word"] for p in verdict["published"]} == {"not repeated"}
    assert verdict["answer"].startswith(f"Of {count} published results {count} are not repeated (parity, cycle, ")


# --- more loops -------------------------------------------------------------------------------------------------------


def parity(model, sizes="T=1-6,beyond=7-9"):
    more = {"seeds": 1, "train": 60, "steps": 0, "held_out": 200}
    return arm("a", "a", "a", f"parity:{sizes}", "direct", model, "adamw", **more).config


def untrained(config):
    """The data of a trial and a model with random weights, so large that a loop more gives other answers."""
    data = Data(config)
    torch.manual_seed(0)
    model = config.model.build(data.script.size, data.context, data.silent)
    vector_to_parameters(4 * parameters_to_vector(model.parameters()).detach(), model.parameters())
    return data, model


def test_more_loops_change_nothing_in_the_constructed_parity():
    config = parity("looped:width=64,heads=2")
    weights = constructed(config)
    for split in ("random", "extrapolation"):
        assert [looped_longer(config, weights, times, split) for times in TIMES] == [1.0, 1.0, 1.0]


def test_as_many_loops_as_in_training_are_what_a_trial_is_judged_by():
    config = parity("looped:width=16,heads=2,position=none")
    data, model = untrained(config)
    weights = parameters_to_vector(model.parameters()).detach()
    splits = judge(config, data, model)["splits"]
    assert {s: looped_longer(config, weights, 1, s) for s in splits} == splits


def test_twice_as_many_loops_are_the_model_with_twice_as_many_loops():
    ten, once, twice = (
        parity(f"looped:width=16,heads=2,loops={loops}", "T=9,beyond=10") for loops in (0, 9, 18)
    )  # words of ten bits take nine steps
    judged = []
    for config in (once, twice):
        data, model = untrained(config)
        judged.append(judge(config, data, model)["splits"]["extrapolation"])
    weights = parameters_to_vector(model.parameters()).detach()
    assert [looped_longer(ten, weights, times, "extrapolation") for times in (1, 2)] == judged
    assert judged[0] != judged[1], "the loops make no difference to this model: it tests nothing"


def test_only_a_model_that_is_looped_once_a_step_takes_more_loops():
    for model in ("gru:width=8", "looped:width=16,heads=2,loops=3"):
        with pytest.raises(UserError, match="looped with loops=0"):
            looped_longer(parity(model), torch.zeros(1), 2)
