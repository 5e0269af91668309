"""The study of starvation: its grid, and the sentence that it makes of what came."""

from collections import Counter

import pytest

from crevasse.config import TrialConfig
from crevasse.errors import UserError
from crevasse.rules.race import Race
from crevasse.studies import BUDGETS, STUDIES
from crevasse.studies.starvation import BASELINE, ELSEWHERE, FEWER, PLACES, RACED, ROWS, WAYS, WITHHELD

STUDY = STUDIES.parse("starvation")
CELL_GROUPS = (BASELINE, WITHHELD, RACED)


@pytest.mark.parametrize("budget", BUDGETS)
def test_names_are_unique_and_every_config_can_be_made(budget):
    arms = STUDY.arms(budget)
    assert max(Counter(a.name for a in arms).values()) == 1
    assert max(Counter(a.title for a in arms if a.group != RACED).values()) == 1
    configs = [c for a in arms for c in a.trials()]
    assert all(TrialConfig.from_json(c.to_json()) == c for c in configs)
    assert all(len({c.id for c in a.trials()}) == a.seeds for a in arms)


@pytest.mark.parametrize("budget", BUDGETS)
def test_on_the_cell_all_may_cost_the_same(budget):
    of_the_cell = [a.config for a in STUDY.arms(budget) if a.group in CELL_GROUPS]
    assert {c.rows for c in of_the_cell} == {ROWS // 8 if budget == "smoke" else ROWS}
    for c in of_the_cell:
        assert c.train == 2000 and c.seed == 0 and c.data_seed is None
        assert 2 * c.batch * c.steps >= c.rows, "its steps end before its passes"


def test_the_grids_are_those_that_were_asked_for():
    full = STUDY.arms("full")
    assert {a.group: a.seeds for a in full} == {BASELINE: 5, WITHHELD: 5, RACED: 5, FEWER: 10, ELSEWHERE: 3}
    assert Counter(a.group for a in full) == {BASELINE: 7, WITHHELD: 20, RACED: 4, FEWER: 4, ELSEWHERE: 14}
    assert {a.name.split("-")[1] for a in full if a.group == WITHHELD} == set(WAYS)
    assert len([a for a in full if a.name.endswith("-race")]) == len(PLACES)
    names = [a.name for a in full]
    assert {"adamw-lr.003-d3", "starve-decay-.1-lr.03", "race-n1000"} <= set(names)
    fewer = [a for a in full if a.group == FEWER]
    assert [(a.config.seed, a.trials()[-1].seed) for a in fewer] == [(100, 109)] * 3 + [(200, 209)]
    assert [(c.train, c.steer, c.batch, c.rows // ROWS) for c in (a.config for a in fewer)] == [
        (2000, 250, 500, 2), (1000, 200, 500, 2), (500, 100, 400, 2), (2000, 250, 500, 2),
    ]  # fmt: skip


def test_only_rules_that_ask_for_it_keep_problems_to_steer():
    for a in STUDY.arms("full"):
        assert (a.config.steer > 0) == a.config.rule.steers
        assert a.config.train - a.config.steer >= a.config.batch
        if isinstance(a.config.rule, Race):
            assert (a.config.schedule, a.config.warmup) == ("constant", 0.0)
        else:
            assert a.config.schedule == "cosine"
    by_train = next(a.config for a in STUDY.arms("full") if a.name == "race-by-train")
    assert (by_train.steer, by_train.batch) == (0, 500)


def test_what_is_raced_elsewhere_has_adamw_beside_it():
    pairs = {}
    for a in STUDY.arms("full"):
        if a.group == ELSEWHERE:
            pairs.setdefault(a.name.rpartition("-")[0], []).append(a)
    assert list(pairs) == [p[0] for p in PLACES]
    for raced, plain in pairs.values():
        assert (raced.config.task, raced.config.model) == (plain.config.task, plain.config.model)
        assert raced.config.rows == plain.config.rows == 2 * ROWS
        assert (raced.config.rule.name, plain.config.rule.name) == ("race", "adamw")


def came(budget, findings, held_out=0.5):
    """The arms of a verdict, as if so much had come of them. findings: name's beginning -> finding; else memory"""
    arms = []
    for a in STUDY.arms(budget):
        finding = next((f for start, f in findings.items() if a.name.startswith(start)), "memory")
        splits = {} if finding == "diverged" else {"random": {"mean": held_out, "low": 0, "high": 1, "n": a.seeds}}
        arms.append({
            "arm": a.name, "title": a.title, "group": a.group, "finding": finding, "splits": splits,
            "main_split": next(iter(splits), None),
        })  # fmt: skip
    return arms


def test_the_answer_counts_what_came():
    found = {"starve-decay-.1": "rule", "starve-width-.5-lr.01": "rule", "race-thin": "rule", "race-by": "part",
             "t8": "rule", "gru-t6-race": "rule", "adamw-lr.1": "rule"}  # fmt: skip
    said = STUDY.answer(came("full", found))
    assert said.startswith("AdamW by itself found the rule in 1 of 7 settings; ")
    assert (
        "of 5 ways to withhold capacity at full width 2 found it (width in 1 of 4 settings, decay in 2 of 4 settings)"
        in said
    )
    assert "narrow models raced found it in 2 of 4 settings (mean held-out score: 0.50 for race-thin8, " in said
    assert "0.50 for 2,000 examples, 0.50 for 1,000 examples, 0.50 for 500 examples, " in said
    assert said.endswith("elsewhere the race found it in 2 of 7 settings, AdamW in 1 of 7.")


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("finding", ["rule", "part", "memory", "nothing", "diverged"])
def test_whatever_comes_there_is_a_sentence(budget, finding):
    said = STUDY.answer(came(budget, {"": finding}))
    groups = {a.group for a in STUDY.arms(budget)}
    assert said.endswith(".") and said[0].isupper()
    assert said.count(";") == len(groups) - 1
    assert ("none for" in said) == (finding == "diverged")
    assert ("0 of" in said) == (finding != "rule")


def test_some_groups_and_arms_alone_are_the_same_arms():
    whole = [a for a in STUDY.arms("full") if a.group == BASELINE or a.name == "race-n1000"]
    assert STUDIES.parse("starvation:only=baseline+race-n1000").arms("full") == whole
    with pytest.raises(UserError, match="did you mean 'baseline'"):
        STUDIES.parse("starvation:only=basline").arms("full")
