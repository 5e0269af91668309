"""The leaderboard: equal tries, equal passes, settings picked by validation, and evidence that is its own."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from crevasse.config import REVISION, TrialConfig, config_id
from crevasse.errors import UserError
from crevasse.rules import RULES
from crevasse.spec import describe
from crevasse.studies import STUDIES, decide, read_evidence, run_study
from crevasse.studies import rules as study
from crevasse.studies.leaderboard.benches import ADD_59, CELL, CURVE, DIGITS, RECURSIVE, TABLES, noisy
from crevasse.studies.leaderboard.board import curve, make_board
from crevasse.studies.leaderboard.costs import rows_a_step
from crevasse.studies.leaderboard.entrants import TRIES, everyone, settings
from crevasse.studies.leaderboard.picking import pick
from crevasse.trial import run_trial

MINE = """
from dataclasses import dataclass
from typing import ClassVar

from crevasse.rules import BaseRule


@dataclass(frozen=True)
class Signs(BaseRule):
    '''The sign of each entry of the gradient.'''

    name: ClassVar[str] = "signs"
    lr: float = 0.01

    def init(self, weights, layout):
        return {}

    def rate(self, step):
        return self.lr * step.scale

    def apply(self, gradient, weights, state, step):
        return weights - self.rate(step) * gradient.sign(), state
"""


# --- equal terms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", everyone())
def test_every_rule_has_the_same_number_of_different_settings_on_every_bench(name):
    for bench in (ADD_59, CELL, DIGITS, RECURSIVE, *TABLES):
        choices = settings(name, bench.rate)
        assert len(choices) == TRIES
        assert len({RULES.parse(c) for c in choices}) == TRIES, choices
        assert {RULES.parse(c).name for c in choices} == {name}


@pytest.mark.parametrize(
    ("rule", "passes"),
    # Of a plain step, which is a pass forward and one backward.
    [("adamw", 1), ("gaf", 1), ("sam", 2), ("bilevel", 2), ("mezo", 1), ("es", 8), ("perp:base=grokfast", 1)],
)
def test_what_a_step_costs_is_what_its_documentation_says(rule, passes):
    assert rows_a_step(RULES.parse(rule), 64) == passes * 128


def test_looks_at_the_steer_set_are_paid_for():
    matching = rows_a_step(RULES.parse("starve:check=20,until=1"), 64, 32)
    assert matching == pytest.approx(128 + 32 / 20)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["adamw", "sam", "matching", "es", "gaf", "race:cells=8,each=5,refit=2", "starve"])
def test_no_rule_gets_more_passes_than_the_bench_allows(tmp_path, rule):
    bench = dataclasses.replace(CELL, steps=6, train=300, batch=64)
    config = bench.config(rule, 0)
    result = run_trial(config, tmp_path)["result"]
    batch = min(config.batch, result["examples"]["train"])
    rows = result["passes"] * batch
    assert result["steps"] >= 1
    assert rows >= bench.rows or result["steps"] == config.steps
    # It stops with the step that spends the last of it.
    a_step = 2 * batch if rule.startswith("race") else rows_a_step(config.rule, batch, config.steer)
    assert rows < bench.rows + max(a_step, 8 * batch)


@pytest.mark.parametrize("budget", ["smoke", "minutes", "full"])
def test_tries_and_tests_share_no_seed_and_every_rule_has_its_tries(budget):
    rules = STUDIES.parse("rules")
    tries = rules.tries(budget)
    assert len({a.name for a in tries}) == len(tries)
    counts = {}
    for arm in tries:
        place = arm.name.rpartition("/")[0]
        counts[place] = counts.get(place, 0) + 1
        assert [c.seed for c in arm.trials()] == [study.TRIED]
        assert arm.config.steps > 0
    assert set(counts.values()) == {TRIES}
    for stand in rules.stands(budget):
        assert study.TRIED not in range(stand.seeds)
        assert budget != "full" or stand.seeds >= 5
        place = stand.bench.tuned or stand.bench.name
        assert all(f"{place}/{r}" in counts for r in stand.rules if stand.bench.fits(settings(r, stand.bench.rate)[0]))


def test_some_benches_alone_ask_for_the_same_trials():
    whole, some = STUDIES.parse("rules"), STUDIES.parse("rules:only=add-59-random+cell-1000")
    part = some.stands("full")
    assert [s.bench.name for s in part] == ["add-59-random", "cell-1000"]
    ids = {a.name: a.config.id for a in whole.tries("full")}
    tries = some.tries("full")  # on the benches on which their settings are picked
    assert {a.name.split("/")[0] for a in tries} == {"add-59", "cell-2000"}
    assert all(ids[a.name] == a.config.id for a in tries)
    assert describe(some) == "rules:only=add-59-random+cell-1000" and STUDIES.parse(describe(some)) == some
    with pytest.raises(UserError, match="did you mean 'add-97'"):
        STUDIES.parse("rules:only=add-95").tries("full")


def test_the_cell_and_its_curve_differ_in_nothing_but_the_data():
    for bench in CURVE:
        for rule in ("adamw", "muon"):
            a, b = bench.config(rule, 0), CELL.config(rule, 0)
            assert dataclasses.replace(a, train=b.train, batch=b.batch, steps=b.steps) == b
            assert a.rows == b.rows


def test_wrong_labels_are_the_only_difference_of_a_noisy_bench():
    clean = ADD_59.config("adamw", 3)
    assert dataclasses.replace(noisy(ADD_59, 1).config("adamw", 3), labels="true") == clean
    assert dataclasses.replace(noisy(ADD_59, 0.25).config("adamw", 3), labels="true", noise=0) == clean


# --- picked by validation ----------------------------------------------------------------------------------------


def row(exact, held_out=None, passes=None, status="done"):
    n = len(exact)
    return {
        "curve_held_out_exact": exact,
        "curve_held_out": held_out or [1.0] * n,
        "curve_passes": passes or [2.0 * i for i in range(n)],
        "status": status,
    }


def test_the_setting_that_finds_the_rule_soonest_and_keeps_it_is_picked():
    sooner, later = row([0, 0.96, 1]), row([0, 0.3, 0.99])
    lost = row([0.97, 0.5, 0.2])
    never, diverged = row([0, 0.5, 0.94]), row([0, 1, 1], status="diverged")
    assert pick([lost, later, diverged, sooner, never]) == 3
    assert pick([lost, later, diverged, never]) == 1
    assert pick([lost, diverged, never]) == 2
    assert pick([diverged, lost]) == 1


def test_of_equals_the_lower_validation_loss_is_picked_then_the_first():
    assert pick([row([0, 0.1], [2, 3.0]), row([0, 0.1], [2, 2.5])]) == 1
    assert pick([row([0, 0.1]), row([0, 0.1])]) == 0


def test_what_the_tests_say_plays_no_part():
    tried = [row([0, 0.4]) | {"random": 0.0}, row([0, 0.3]) | {"random": 1.0}]
    assert pick(tried) == 0


# --- the board ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A leaderboard of two benches and three rules, run for real."""
    out = tmp_path_factory.mktemp("board")
    file = out / "mine.py"
    file.write_text(MINE)
    small = dataclasses.replace(ADD_59, steps=20, name="small", probe_every=5)
    cell = dataclasses.replace(CELL, steps=12, train=300, batch=64, name="cell-300")
    stands = [study.Stand(small, ("adamw", "perp"), 2), study.Stand(cell, ("adamw", "race"), 2)]
    others = study._stands
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "_stands", lambda budget: stands if budget == "smoke" else others(budget))
        chosen = STUDIES.parse(f"rules:{file}")
        verdict = run_study(chosen, "smoke", out)
        yield chosen, verdict, read_evidence(out / "evidence.parquet"), (small, cell)


@pytest.mark.slow
def test_a_newcomers_file_stands_beside_the_others(ran):
    chosen, verdict, _, _ = ran
    mine = f"file:{chosen.rule}"
    for bench in verdict["board"]["benches"]:
        assert mine in [e["rule"] for e in bench["entries"]]
    assert mine in [r["rule"] for r in verdict["board"]["rules"]]
    assert [a["arm"] for a in verdict["arms"]] == [
        f"{b}/{r}"
        for b, rules in (("small", ("adamw", "perp")), ("cell-300", ("adamw", "race")))
        for r in (*rules, mine)
    ]


@pytest.mark.slow
def test_the_tests_are_run_with_the_settings_that_validation_picks(ran):
    _, _, rows, benches = ran
    for bench in benches:
        for rule in {r["arm"].split("/")[1] for r in rows if r["phase"] == "test" and "file:" not in r["arm"]}:
            tried = [r for r in rows if r["phase"] == "tuning" and r["arm"].startswith(f"{bench.name}/{rule}/")]
            tested = {r["rule"] for r in rows if r["phase"] == "test" and r["arm"] == f"{bench.name}/{rule}"}
            if tried:
                best = max(tried, key=lambda r: (r["curve_held_out_exact"][-1], -r["curve_held_out"][-1]))
                assert tested == {best["rule"]}


def test_the_figures_are_those_of_the_rows(ran):
    _, verdict, rows, _ = ran
    for bench in verdict["board"]["benches"]:
        for entry in bench["entries"]:
            mine = [r for r in rows if r["phase"] == "test" and r["arm"] == f"{bench['name']}/{entry['rule']}"]
            assert entry["seeds"] == len(mine) == 2
            # Two values have no quarter to leave out: their interquartile mean is their mean.
            assert entry["held_out"]["mean"] == pytest.approx(np.mean([r["random"] for r in mine]))
            assert entry["train"]["mean"] == pytest.approx(scipy_stats.trim_mean([r["train"] for r in mine], 0.25))
            assert entry["s_max"]["mean"] == pytest.approx(np.mean([r["s_max"] for r in mine]))
            assert entry["reached"] == sum(r["curve_held_out_exact"][-1] >= 0.95 for r in mine)


def test_the_same_evidence_gives_the_same_verdict(ran):
    chosen, verdict, rows, _ = ran
    again = decide(chosen, "smoke", rows)
    assert json.loads(json.dumps(again | {"seconds": verdict["seconds"]})) == json.loads(json.dumps(verdict))


@pytest.mark.parametrize("how", ["config", "trial", "missing", "added", "setting", "twice", "file"])
def test_evidence_that_is_not_its_own_is_refused(ran, how):
    chosen, _, rows, _ = ran
    rows = [dict(r) for r in rows]
    at = next(i for i, r in enumerate(rows) if r["phase"] == "test")
    config = json.loads(rows[at]["config"])
    if how == "config":
        rows[at]["config"] = json.dumps(config | {"steps": 21})
    elif how == "trial":
        rows[at]["trial"] = "0" * 12
    elif how == "missing":
        del rows[at]
    elif how == "added":
        rows.append(rows[at] | {"seed": 77})
    elif how == "twice":
        rows.append(rows[at])
    elif how == "file":  # a newcomer's rule with more passes than the others
        mine = next(r for r in rows if "/file:" in r["arm"] and r["phase"] == "test")
        more = json.loads(mine["config"])
        more["rows"] *= 2
        mine |= {"config": json.dumps(more), "trial": config_id(more)}
    else:  # a whole trial of a better setting, with its own honest hash
        config["steps"] += 5
        rows[at] |= {"config": json.dumps(config), "trial": config_id(config)}
    with pytest.raises(UserError, match="evidence") as e:
        decide(chosen, "smoke", rows)
    assert "\n" not in str(e.value)


def test_the_id_of_a_config_is_that_of_what_is_written_of_it(small):
    config = small()
    assert config_id(json.loads(json.dumps(config.to_json()))) == config.id
    assert REVISION > 0


def made_up(bench, rule, seed, exact, passes=(0, 2, 4), phase="test", lockstep=0.5, s_max=1.0, **more):
    """A row with just what the board reads."""
    return {
        "phase": phase, "arm": f"{bench}/{rule}", "rule": rule, "seed": seed, "status": "done", "chance": 0.1,
        "train": 1.0, "random": exact[-1], "interpolation": None, "extrapolation": None, "ceiling_random": 1.0,
        "lockstep": lockstep, "s_max": s_max, "passes": passes[-1], "steps": 2, "seconds": 8.0, "examples": 50,
        "config": json.dumps({"batch": 10, "rows": 10 * passes[-1]}), 
        "curve_held_out_exact": list(exact), "curve_passes": list(passes),
        "curve_samples": [5 * p for p in passes], "curve_step": list(range(len(passes))), **more,
    }  # fmt: skip


def test_costs_are_those_of_the_first_reading_at_which_the_rule_was_found():
    rows = [made_up("add-59", "perp", s, (0, 0.96, 1)) for s in range(3)]
    rows += [made_up("add-59", "perp", 3, (0, 0.96, 0.4))]  # found and lost
    rows += [made_up("add-59", "adamw", s, (0, 0.1, 1)) for s in range(4)]
    (bench,) = make_board([ADD_59], rows)["benches"]
    perp, adamw = (next(e for e in bench["entries"] if e["rule"] == r) for r in ("perp", "adamw"))
    assert (perp["reached"], perp["steps_to"], perp["passes_to"], perp["samples_to"]) == (3, 1, 2, 10)
    assert (perp["seconds_to"], perp["rows_to"]) == (4.0, 20.0)
    assert (adamw["reached"], adamw["steps_to"], adamw["rows_to"]) == (4, 2, 40.0)
    # Per seed: half the budget, or 2 where it was not found, against all of it.
    assert perp["versus"]["difference"] == pytest.approx((3 * (0.5 - 1) + (2 - 1)) / 4)


def test_a_training_that_ends_early_is_charged_what_it_took_of_the_budget():
    rows = [made_up("add-59", "adamw", s, (0, 0.1, 1)) for s in range(3)]
    early = json.dumps({"batch": 10, "rows": 400})  # it ended after 40 of 400
    rows += [made_up("add-59", "race", s, (0, 0.1, 1), config=early) for s in range(3)]
    race = next(r for r in make_board([ADD_59], rows)["rules"] if r["rule"] == "race")
    assert race["versus"]["difference"] == pytest.approx(0.1 - 1)


def test_sizes_of_the_cell_are_one_pair_a_seed():
    benches = [CELL, *CURVE]
    rows = [
        made_up(b.name, r, s, (0, 0.1, x)) for b in benches for s in range(5) for r, x in (("adamw", 1), ("sgd", 0.2))
    ]
    sgd = next(r for r in make_board(benches, rows)["rules"] if r["rule"] == "sgd")
    assert (sgd["versus"]["n"], sgd["versus"]["p"]) == (5, 2 / 2**5)


def test_who_diverged_does_not_lead_in_least_memory():
    bench = noisy(ADD_59, 1)
    rows = [made_up(bench.name, r, s, (0, 0, 0), status=t, train=x) for s in range(2)
            for r, t, x in (("adamw", "done", 1.0), ("wild", "diverged", None), ("sgd", "done", 0.4))]  # fmt: skip
    (found,) = make_board([bench], rows)["benches"]
    assert [e["rule"] for e in found["entries"]] == ["sgd", "adamw", "wild"]


def test_a_rule_that_is_worse_says_so_only_where_the_seeds_can_show_it():
    def board(seeds):
        rows = [made_up("add-59", "adamw", s, (0, 0.96, 1)) for s in range(seeds)]
        rows += [made_up("add-59", "slow", s, (0, 0.2, 0.3)) for s in range(seeds)]
        return {r["rule"]: r for r in make_board([ADD_59], rows)["rules"]}

    assert board(5)["slow"]["versus"]["p"] == 2 / 2**5
    assert board(5)["slow"]["versus"]["word"] == "no difference seen"
    assert board(8)["slow"]["versus"]["word"] == "later"
    assert board(5)["slow"]["failure_rate"] == 1 and board(5)["adamw"]["failure_rate"] == 0


def test_comparisons_are_corrected_for_their_number():
    rng = np.random.default_rng(0)
    rows = [made_up("add-59", "adamw", s, (0, 0.96, 1)) for s in range(8)]
    for i in range(6):
        late = [rng.random() < 0.5 + i / 10 for _ in range(8)]
        rows += [made_up("add-59", f"r{i}", s, (0, 0.2, 1) if late[s] else (0, 0.96, 1)) for s in range(8)]
    rules = [r for r in make_board([ADD_59], rows)["rules"] if r["versus"]]
    raw = np.array([r["versus"]["p"] for r in rules])
    # Holm by its definition: the k-th smallest times the number of those that are not smaller.
    order = np.argsort(raw, kind="stable")
    due = np.minimum(np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)), 1)
    assert [rules[i]["versus"]["adjusted"] for i in order] == pytest.approx(list(due))
    # And each p by listing every way to exchange the two.
    for rule in rules:
        own = [r for r in rows if r["arm"] == f"add-59/{rule['rule']}"]
        d = np.array([1 - 0.5 if r["curve_held_out_exact"][1] < 0.95 else 0.0 for r in own])
        flips = [abs(np.dot(f, d)) >= abs(d.sum()) - 1e-12 for f in itertools.product((1, -1), repeat=8)]
        assert rule["versus"]["p"] == pytest.approx(np.mean(flips))


def test_the_smallest_data_is_that_at_which_half_of_the_seeds_find_the_rule():
    benches = [CELL, *CURVE]
    rows = []
    for bench in benches:
        for seed in range(4):
            found = seed < {500: 0, 1000: 1, 2000: 2, 5000: 4, 20_000: 4, 50_000: 1}[bench.train]
            rows.append(made_up(bench.name, "adamw", seed, (0, 0.1, 1.0 if found else 0.1)))
            rows.append(made_up(bench.name, "sgd", seed, (0, 0.1, 0.1)))
    board = make_board(benches, rows)
    assert {r["rule"]: r["smallest"] for r in board["rules"]} == {"adamw": 2000, "sgd": None}
    points = curve(board["benches"], "adamw")
    assert [n for n, _ in points] == [500, 1000, 2000, 5000, 20_000, 50_000]
    assert points[0][1]["mean"] == pytest.approx(0.1) and points[3][1]["mean"] == 1.0


def test_seconds_are_compared_for_the_same_rows():
    rows = [made_up("add-59", "adamw", s, (0, 0, 0)) for s in range(3)]
    rows += [made_up("add-59", "sam", s, (0, 0, 0), passes=(0, 1, 2)) for s in range(3)]  # half the rows in 8 seconds
    assert {r["rule"]: r["slower"] for r in make_board([ADD_59], rows)["rules"]} == {"adamw": 1, "sam": 2}


# --- what the user gets wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "needle"),
    [("rules:none.py", "no such file"), ("rules:rule=none.py,only=add-59", "no such file"), ("rules:only=x", "bench")],
)
def test_a_wrong_file_is_told_in_one_line_before_anything_is_made(tmp_path, name, needle):
    with pytest.raises(UserError, match=needle) as e:
        run_study(STUDIES.parse(name), "minutes", tmp_path / "out")
    assert "\n" not in str(e.value)
    assert not (tmp_path / "out").exists()


def test_a_report_is_read_without_running_the_newcomers_file(ran):
    chosen, verdict, rows, _ = ran
    gone = dataclasses.replace(chosen, rule="/nowhere/" + chosen.rule.rpartition("/")[2])
    assert decide(gone, "smoke", rows)["board"] == verdict["board"]


# --- training that ends where its rows are spent ------------------------------------------------------------------


def test_training_ends_with_the_step_that_spends_the_last_rows(tmp_path, small):
    whole = small(steps=40, batch=16)
    cut = dataclasses.replace(whole, rows=2 * 16 * 25 - 1)
    record = run_trial(cut, tmp_path)
    assert record["status"] == "done"
    assert record["result"]["steps"] == 25 and record["result"]["passes"] == 50
    assert run_trial(whole, tmp_path)["result"]["steps"] == 40


def test_a_limit_that_is_not_reached_changes_nothing_but_the_id(tmp_path, small):
    whole = small(steps=12, batch=16)
    free = dataclasses.replace(whole, rows=10**9)
    assert free.id != whole.id
    a, b = (run_trial(c, tmp_path)["result"] for c in (whole, free))
    assert {k: v for k, v in a.items() if "seconds" not in k} == {k: v for k, v in b.items() if "seconds" not in k}


def test_a_config_without_a_limit_keeps_the_id_that_it_had_before_there_was_one(small):
    data = small().to_json()
    assert "rows" not in data
    assert TrialConfig.from_json(data) == small()
    limited = dataclasses.replace(small(), rows=64)
    assert TrialConfig.from_json(limited.to_json()) == limited
    assert math.isfinite(limited.rows)
