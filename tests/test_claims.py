"""The claims: what they compute, against other sources; how they decide, on evidence made up for each verdict."""

import itertools
import json
import math
import re
from decimal import Decimal, localcontext

import numpy as np
import pytest
import sympy
from sklearn.metrics import roc_auc_score

from crevasse.errors import UserError
from crevasse.models.constructed.counter import EXACT
from crevasse.studies import BUDGETS, STUDIES, decide
from crevasse.studies.claims.base import DECISIONS, Evidence
from crevasse.studies.claims.blame import (
    DATA,
    FORMATS,
    MODELS,
    RULES,
    Blame,
    total_shares,
    variance_shares,
    without_noise,
)
from crevasse.studies.claims.chain_of_thought import SPELT, WAYS, ChainOfThought
from crevasse.studies.claims.closed_forms import Binet, Stirling, figures, stirling
from crevasse.studies.claims.depth import Depth
from crevasse.studies.claims.explosion import EPSILONS, Explosion, _growth
from crevasse.studies.claims.few_examples import CASES, FewExamples
from crevasse.studies.claims.irreducible import LEARNERS, TASKS, Irreducible
from crevasse.studies.claims.sharpness import Sharpness
from crevasse.studies.claims.step_ratio import StepRatio, area_under, early_ratio
from crevasse.studies.claims.structure import CONTROL, STRUCTURED, Structure
from crevasse.studies.claims.study import CLAIMS
from crevasse.studies.own import require_trials
from crevasse.tasks import TESTS, make_splits


def row(arm, seed=0, train=1.0, chance=0.1, curve=None, labels="true", **splits):
    """A row of the evidence, as far as claims look at it."""
    curve = curve or ((), ())
    found = {"arm": arm, "seed": seed, "status": "done", "train": train, "chance": chance, "labels": labels,
             "uniform_loss": 1.0, "curve_train": curve[0], "curve_held_out": curve[1]}  # fmt: skip
    for t in TESTS:
        found |= {t: splits.get(t), f"ceiling_{t}": 1.0, f"majority_{t}": 0.1, f"lookup_{t}": 0.0, f"nearest_{t}": 0.1}
    return found


def ruling(claim, rows=(), measures=()):
    return claim.decide(Evidence(list(rows), list(measures), list(rows)))


# --- all of them ------------------------------------------------------------------------------------------------------


def test_every_claim_says_beforehand_what_decides_it():
    numbers = [c.number for c in CLAIMS]
    assert len(set(numbers)) == len(numbers)
    assert numbers == [f"C{i}" for i in range(1, 14)]
    for c in CLAIMS:
        for text in (c.title, c.quote, c.hypothesis, c.experiment, c.rule, c.change):
            assert text.strip() and "  " not in text
        assert "upported" in c.rule or "efuted" in c.rule or "half right" in c.rule


@pytest.mark.parametrize("budget", BUDGETS)
def test_arms_carry_the_number_of_their_claim_and_no_name_is_used_twice(budget):
    arms = STUDIES.parse("claims").arms(budget)
    assert len({a.name for a in arms}) == len(arms)
    for claim in CLAIMS:
        own = claim.arms(budget)
        assert all(a.name.startswith(f"{claim.number}/") and a.group == f"{claim.number}: {claim.title}" for a in own)
    few = {"smoke": 1, "minutes": 1, "full": 3}[budget]
    alone = [a.name for a in arms if a.seeds < few]  # the longest products: see LONG in claims/depth.py
    assert alone == ([a.name for a in arms if re.fullmatch(r"C3/\w+-\d-31-64", a.name)] if budget == "full" else [])


@pytest.mark.slow
@pytest.mark.parametrize("budget", BUDGETS)
def test_every_trial_has_the_problems_that_it_asks_for(budget):
    made = set()
    for a in STUDIES.parse("claims").arms(budget):
        c = a.config
        key = (c.task, c.train, c.steer, c.labels)
        if key not in made:
            made.add(key)
            splits = make_splits(c.task, c.train, steer=c.steer, held_out=50, seed=0, labels=c.labels)
            assert len(splits.train) and len(splits.validation)


def test_some_claims_alone_and_unknown_ones_are_told():
    with pytest.raises(UserError, match="unknown claim 'C14'"):
        STUDIES.parse("claims:only=C14").arms("minutes")
    assert {a.name[:3] for a in STUDIES.parse("claims:only=c4+C5").arms("minutes")} == {"C4/", "C5/"}


# --- arithmetic -------------------------------------------------------------------------------------------------------


def test_stirlings_series_is_that_of_the_gamma_function():
    with localcontext() as context:
        context.prec = 60
        for n in (1, 2, 10, 100, 170):
            exact = Decimal(math.factorial(n))
            for terms in range(4):
                # The next term bounds what is left out (an alternating series): |B_2k| / (2k (2k−1) n^(2k−1)).
                k = terms + 1
                bound = abs(sympy.bernoulli(2 * k)) / (2 * k * (2 * k - 1) * sympy.Integer(n) ** (2 * k - 1))
                error = abs((stirling(n, terms) / exact).ln())
                assert error <= Decimal(str(sympy.N(bound, 30))) * (1 + Decimal("1e-20"))
                assert error >= Decimal(str(sympy.N(bound, 30))) * Decimal("0.2")


def test_seven_figures_are_those_that_the_thesis_writes():
    assert figures(math.factorial(10)) == "3.628800e+6"
    assert figures(Decimal("1307674368000")) == "1.307674e+12"


def test_stirling_is_half_right_and_binet_refuted():
    found = ruling(Stirling(), measures=Stirling().measure("full", None, []))
    assert found.decision == "half right" and "but 1, 2, 3" in found.key
    measures = Binet().measure("full", None, [])
    found = ruling(Binet(), measures=measures)
    assert found.decision == "refuted" and "until n = 70" in found.key
    golden = (1 + math.sqrt(5)) / 2
    for m in measures:
        if m["series"] == "error" and m["label"] == "exact arithmetic" and m["x"] <= 60:
            assert m["value"] == pytest.approx(golden ** -m["x"] / math.sqrt(5), rel=1e-9)


def test_a_growing_error_would_support_binets_claim():
    grown = [m | {"value": m["x"]} if m["series"] == "error" else m for m in Binet().measure("full", None, [])]
    assert ruling(Binet(), measures=grown).decision == "supported"


def test_growth_is_the_power_of_n():
    measures = [Explosion().note("a", "b", 3 * n**1.7, x=n) for n in range(2, 20)]
    assert _growth(measures) == pytest.approx(1.7)


def test_errors_of_the_program_in_numbers_are_those_of_its_formula():
    measures = Explosion().measure("smoke", None, [])
    for eps in EPSILONS:
        found = {
            m["label"]: m["value"] for m in measures if m["series"] == f"relative error at {eps:g}" and m["x"] == EXACT
        }
        assert found["factor"] == pytest.approx((1 + eps) ** EXACT - 1, rel=1e-6)
        # n (n − d)(n − 2d) … with n factors
        product = math.prod(EXACT - i * (1 + eps) for i in range(EXACT))
        assert found["decrement"] == pytest.approx(abs(product / math.factorial(EXACT) - 1), rel=1e-6)
    example = {m["x"]: m["value"] for m in measures if m["series"] == "the thesis' example"}
    assert example[10] == pytest.approx(10 * math.gamma(11) / math.factorial(10) - 1)
    assert ruling(Explosion(), measures=measures).decision == "half right"
    falls = [m | {"value": 1 / m["x"]} if m["series"] == "network right" else m for m in measures]
    assert ruling(Explosion(), measures=falls).decision == "supported"
    mild = [m | {"value": 0.01 * m["x"]} if m["series"].startswith("relative") else m for m in measures]
    assert ruling(Explosion(), measures=mild).decision == "refuted"


# --- statistics -------------------------------------------------------------------------------------------------------


def test_shares_of_the_variance_add_up_and_find_what_was_put_in():
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=n) for n in (3, 4, 2))
    table = a[:, None, None, None] + (b[:, None] * c)[None, :, :, None] + rng.normal(size=(3, 4, 2, 5)) * 1e-9
    shares = variance_shares(table)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[0, 1] == pytest.approx(0, abs=1e-12) and shares[()] == pytest.approx(0, abs=1e-12)
    assert shares[(0,)] == pytest.approx(a.var() / table.var(), rel=1e-6)
    assert shares[1, 2] == pytest.approx(((b - b.mean())[:, None] * (c - c.mean())).var() / table.var(), rel=1e-6)
    totals = total_shares(shares)
    assert totals[1] == pytest.approx(shares[(1,)] + shares[1, 2]) and totals[0] == pytest.approx(shares[(0,)])


def test_what_seeds_alone_would_give_is_taken_off():
    rng = np.random.default_rng(3)
    raw, left = [], []
    for _ in range(60):
        table = rng.normal(size=(4, 3, 2, 3)) + np.arange(3)[None, :, None, None]
        raw.append(total_shares(variance_shares(table))[0])
        left.append(without_noise(table)[(0,)])
    assert np.mean(raw) > 0.15, "an effect of nothing"
    assert np.mean(left) < 0.03


def test_the_area_is_that_of_the_roc_curve():
    rng = np.random.default_rng(1)
    values, positive = rng.integers(0, 6, 60).astype(float), rng.random(60) < 0.4
    assert area_under(values, positive) == pytest.approx(roc_auc_score(positive, values))


def test_the_early_ratio_is_read_at_a_quarter_of_the_way():
    curve = ([1.0, 0.9, 0.7, 0.1], [1.0, 0.95, 0.85, 2.0])
    # Between s = .1, h = .05 and s = .3, h = .15.
    assert early_ratio(row("C1/a", curve=curve)) == pytest.approx(0.125 / 0.25)
    assert early_ratio(row("C1/a", curve=([1.0, 0.9], [1.0, 0.9]))) is None
    assert early_ratio(row("C1/a", curve=([1.0, 0.05], [1.0, 1.3]))) is None, "too late to tell"
    assert early_ratio(row("C1/a", curve=curve, labels="random")) is None


# --- decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("learnt", "shuffled", "decision"),
    [(4, 0.02, "supported"), (2, 0.02, "half right"), (0, 0.02, "refuted"), (4, 0.9, "undecided")],
)
def test_c1(learnt, shuffled, decision):
    rows = [row(f"C1/{name}", random=0.99 if i < learnt else 0.05) for i, (name, _) in enumerate(STRUCTURED)]
    assert ruling(Structure(), [*rows, row(f"C1/{CONTROL}", random=shuffled)]).decision == decision


@pytest.mark.parametrize(
    ("found", "decision"),
    [
        ({"affine-trace"}, "supported"),
        (set(), "undecided"),
        ({"s5-trace", "s5-recurrent"}, "half right"),
        ({"s5-trace", "s5-direct"}, "refuted"),
        ({"s5-trace", "s5-filler"}, "refuted"),
        ({"s5-recurrent", "affine-looped"}, "refuted"),
        ({"parity-direct", "product-recurrent"}, "undecided"),  # these two are reducible
    ],
)
def test_c2(found, decision):
    names = [f"{task}-{learner}" for task, *_ in TASKS for learner, *_ in LEARNERS]
    rows = [row(f"C2/{n}", random=0.95 if n in found else 0.1, extrapolation=0.1) for n in names]
    made = ruling(Irreducible(), rows)
    assert made.decision == decision
    if decision == "supported":  # not so where nobody learnt what was taught, and one seed of five contradicts
        dull = [r | {"train": 0.2} if not r["arm"].endswith("trace") else r for r in rows]
        assert ruling(Irreducible(), dull).decision == "undecided"
        lucky = row("C2/s5-direct", seed=4, random=0.95, extrapolation=0.1)
        assert ruling(Irreducible(), [*rows, lucky]).decision == "refuted"
    matrix = made.pictures[0]
    assert len(matrix["rows"]) == 2 * len(TASKS) and len(matrix["columns"]) == len(LEARNERS)


@pytest.mark.parametrize(
    ("built", "trained", "decision"),
    [(7, 4, "refuted"), (7, 2, "half right"), (3, 2, "supported"), (7, 0, "undecided")],
)
def test_c3(built, trained, decision):
    claim = Depth()
    measures = [claim.note("constructed", "3 layers", float(n <= built), x=n) for n in (2, 3, 4, 7, 8)]
    # Where nobody learnt anything nothing is known of what training reaches.
    learnt = 1.0 if trained else 0.3
    rows = [row(f"C3/s5-2-{n}-64", train=learnt, random=0.99 if n <= trained else 0.0) for n in (1, 2, 4, 7)]
    assert ruling(claim, rows, measures).decision == decision


@pytest.mark.parametrize(("better", "decision"), [(0, "supported"), (1, "half right"), (3, "refuted")])
def test_c4(better, decision):
    rows = [row(f"C4/{name}", **{split: 0.9 if i < better else 0.1}) for i, (name, _, split) in enumerate(CASES)]
    assert ruling(FewExamples(), rows).decision == decision
    assert ruling(FewExamples(), [r | {"train": 0.5} for r in rows]).decision == "undecided"


@pytest.mark.parametrize(
    ("found", "decision"),
    [
        ({"trace"}, "supported"),
        ({"trace", "recurrent"}, "supported"),
        ({"trace", "mixed"}, "half right"),
        ({"recurrent"}, "refuted"),
        (set(), "refuted"),
    ],
)
def test_c5(found, decision):
    rows = [row(f"C5/{w[0]}", random=1.0 if w[0] in found else 0.1) for w in WAYS]
    assert set(SPELT) < {w[0] for w in WAYS}
    assert ruling(ChainOfThought(), rows).decision == decision
    gone = [r | {"status": "diverged"} if r["arm"] != "C5/trace" else r for r in rows]
    assert ruling(ChainOfThought(), gone).decision == ("undecided" if "trace" in found else "refuted")


@pytest.mark.parametrize(
    ("trace", "tolerance", "decision"),
    [((9, 1), (0.1, 0.4), "supported"), ((1, 9), (0.4, 0.1), "refuted"), ((9, 1), (0.4, 0.1), "half right"),
     (None, None, "undecided"), ((1, 9), None, "refuted"), ((9, 1), None, "half right")],
)  # fmt: skip
def test_c6(trace, tolerance, decision):
    claim, measures, rows = Sharpness(), [], []
    for seed in range(6):
        for name, values in (("trace at equal loss", trace), ("tolerance", tolerance), ("exact", (1.0, 1.0))):
            a, b = values or ((1, 2) if seed % 2 else (2, 1))
            measures += [claim.note(name, "found", a, seed=seed), claim.note(name, "memory", b, seed=seed)]
        rows += [row("C6/found", seed=seed, random=1.0), row("C6/memory", seed=seed, random=0.08)]
    assert ruling(claim, rows, measures).decision == decision
    # Pairs of which one is not what it is called do not count.
    assert ruling(claim, [r | {"random": 0.5} for r in rows], measures).decision == "undecided"
    unlearnt = [m | {"value": 0.5} if m["series"] == "exact" and m["label"] == "memory" else m for m in measures]
    assert ruling(claim, rows, unlearnt).decision == "undecided"


def trials_of_c8(ratios):
    """Of each task five trials that found the rule and five that did not. ratios: found, not, by task"""
    rows = []
    for task, (found, other) in enumerate(ratios):
        for i in range(10):
            h = (found, other)[i % 2] * 0.5
            config = {"seed": 0, "task": task, "of": i}
            made = row(f"C1/{task}-{i}", curve=([1.0, 0.75, 0.5], [1.0, 1 - h / 2, 1 - h]), random=1.0 - 0.9 * (i % 2))
            made |= {"trial": f"{task}-{i}", "task": str(task), "format": "direct", "config": json.dumps(config)}
            rows.append(made)
    return rows


@pytest.mark.parametrize(
    ("ratios", "decision"),
    [([(0.9, 0.1)] * 4, "supported"), ([(0.1, 0.9)] * 4, "refuted"), ([(0.9, 0.1)] * 2, "undecided"),
     # Tasks that differ, and trials of a task that do not: the pooled area would be high.
     ([(0.9, 0.9), (0.1, 0.1), (0.5, 0.5)], "refuted")],
)  # fmt: skip
def test_c8(ratios, decision):
    rows = trials_of_c8(ratios)
    assert ruling(StepRatio(), rows).decision == decision
    assert ruling(StepRatio(), rows + rows).effects == ruling(StepRatio(), rows).effects, "a trial counts once"


@pytest.mark.parametrize(
    ("of", "decision"), [((0,), "supported"), ((2,), "refuted"), ((2, 0), "half right"), (None, "undecided")]
)  # which factors decide success together
def test_c13(of, decision):
    rows = []
    levels = [[x[0] for x in factor] for factor in (RULES[:3], MODELS[:2], FORMATS, DATA[:2])]
    for which in itertools.product(*levels):
        good = of is not None and (which[of[0]] == levels[of[0]][0]) and (len(of) < 2 or which[0] != "sgd")
        rows += [row(f"C13/{'-'.join(which)}", seed=s, random=0.95 if good else 0.08 + 0.01 * s) for s in range(3)]
    assert ruling(Blame(), rows).decision == decision
    assert ruling(Blame(), [r for r in rows if r["seed"] < 2]).decision == "undecided"


# --- the evidence is its own ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def binet():
    return STUDIES.parse("claims:only=C10"), Binet().measure("minutes", None, [])


def test_measures_of_another_version_or_claim_are_refused(binet):
    study, measures = binet
    assert decide(study, "minutes", [], measures)["claims"][0]["decision"] in DECISIONS
    for changed, said in (({"version": 7}, "another version"), ({"claim": "C3"}, "none of these claims")):
        with pytest.raises(UserError, match=said):
            decide(study, "minutes", [], [measures[0] | changed, *measures])
    with pytest.raises(UserError, match="nothing is there of what was measured for C10"):
        decide(study, "minutes", [], [])


def test_evidence_that_lacks_trials_or_holds_others_is_refused():
    study = STUDIES.parse("claims:only=C4")
    with pytest.raises(UserError, match=r"lacks 9 trials \(first C4/thesis, seed 0\)"):
        decide(study, "minutes", [], [])
    config = STUDIES.parse("claims:only=C5").arms("minutes")[0].trials()[0]
    foreign = row("C4/thesis", random=1.0) | {
        "phase": "test", "group": "x", "config": json.dumps(config.to_json()), "trial": config.id,
    }  # fmt: skip
    with pytest.raises(UserError, match="not asked for by this version"):
        require_trials(study.arms("minutes"), [foreign], "these claims")
