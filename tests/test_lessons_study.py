"""The study of lessons and claim C11: how they decide, on measures made up; what is kept; what a block measures."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap

from crevasse import api
from crevasse.errors import UserError
from crevasse.lessons.apply import Training
from crevasse.lessons.causes import KINDS, live
from crevasse.lessons.judge import Cost
from crevasse.lessons.regret import AFTER, false_lessons, gap_closed, run_worlds
from crevasse.lessons.scopes import describe
from crevasse.lessons.world import default_world, load_world
from crevasse.report import build_report
from crevasse.seeds import seed_for
from crevasse.studies import BUDGETS, STUDIES, VERDICT, decide, read_evidence, run_study
from crevasse.studies.claims.augmentation import Augmentation
from crevasse.studies.claims.base import Evidence
from crevasse.studies.lessons import study as lessons
from crevasse.studies.lessons.figures import calibrated, gather
from crevasse.studies.lessons.lives import FIRST, JUDGED, LIVES, STORIES, Plan, block, kinds_of, methods_of
from crevasse.studies.lessons.stories import CHOSEN
from crevasse.studies.measures import MEASURES, fingerprint, read_measures
from crevasse.terminal import print_verdict
from made_up_lessons import measures, reach

STUDY = STUDIES.parse("lessons")
QUICK = Training(steps=10, memory_steps=20)
PLAN = Plan(2, 20, 2, QUICK, experience=2)

TINY = """
[weather]
any = ["wet", "dry"]
wet = ["rain", "snow"]
[who]
any = ["X", "Y"]
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def forty(monkeypatch):
    """Forty lives, twenty of them of pure chance."""
    monkeypatch.setitem(lessons.PLANS, "minutes", PLAN)


# --- the decision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gap", "fixed", "false", "met"),
    [
        (0.95, 0.50, 0.05, [True, True, True]),
        (0.85, 0.50, 0.00, [False, True, True]),
        (0.95, 0.96, 0.00, [True, False, True]),
        (0.95, 0.95, 0.00, [True, False, True]),  # as good is not better
        (0.95, 0.50, 0.10, [True, True, False]),
    ],
)
def test_each_goal_is_met_or_missed_by_its_own_figure(forty, gap, fixed, false, met):
    verdict = decide(STUDY, "minutes", [], measures("minutes", gap=gap, fixed=fixed, false=false))
    goals = verdict["lessons"]["goals"]
    assert [g["met"] for g in goals] == met
    lead = 1.5 * (gap - fixed)
    assert [g["value"]["mean"] for g in goals] == pytest.approx([gap, lead, false], abs=0.05)
    said = [part.split(")")[0] for part in verdict["answer"].split("goal: ")[1:]]
    assert [text.endswith("met") for text in said] == met and [text.endswith("missed") for text in said] == [
        not m for m in met
    ]
    assert f"closes {gap:.2f}".replace("0.", ".") in verdict["answer"]


def test_a_lesson_too_many_after_any_number_of_incidents_misses_the_goal(forty):
    late = [
        m | {"value": 1.0}
        if (m["series"], m["label"], m["x"]) == ("false", "common-sense", 10) and m["seed"] % 2
        else m
        for m in measures("minutes")
    ]
    assert decide(STUDY, "minutes", [], late)["lessons"]["goals"][-1]["met"] is False


def test_where_nothing_was_chance_it_is_said_that_nothing_was_measured(forty):
    some = [m | {"value": 0.0} if m["series"] in ("chance", "false") else m for m in measures("minutes")]
    verdict = decide(STUDY, "minutes", [], some)
    assert verdict["lessons"]["goals"][-1]["met"] is None and "not measured" in verdict["answer"]


@pytest.mark.parametrize(
    ("alone", "replay", "decision"),
    [(0.95, 0.95, "supported"), (0.1, 0.95, "half right"), (0.95, 0.1, "half right"), (0.1, 0.1, "refuted"),
     (0.89, 0.89, "refuted"), (0.9, 0.9, "supported")],
)  # fmt: skip
def test_c11(alone, replay, decision):
    found = reach(alone, replay)
    ruling = Augmentation().decide(Evidence([], found, []))
    assert ruling.decision == decision
    assert [e["value"] for e in ruling.effects[:2]] == pytest.approx([alone, replay])
    dots, spread = ruling.pictures
    assert [name.partition(":")[0] for name in dots["series"][0]["y"]] == [str(i) for i in range(1, 10)]
    assert len(spread["series"][0]["x"]) == 180 and max(spread["series"][0]["x"]) == default_world().size


# --- the figures ------------------------------------------------------------------------------------------------------


def test_intervals_are_those_of_the_bootstrap(forty):
    lives = gather(measures("minutes"))
    values = lives.of("over", "map", 3)
    ours = lives.mean(values)
    low, high = bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    width = high - low
    assert (ours["mean"], ours["n"]) == (pytest.approx(values.mean()), 40)
    assert (ours["low"], ours["high"]) == (pytest.approx(low, abs=width / 10), pytest.approx(high, abs=width / 10))
    above, below = lives.of("utility", "map", 1), lives.of("utility", "oracle", 1)
    ratio = lives.ratio(above, below)
    assert ratio["mean"] == pytest.approx(above.sum() / below.sum())
    assert ratio["low"] <= ratio["mean"] <= ratio["high"]


def test_a_block_keeps_what_the_lives_of_its_seed_say(tiny):
    """Gap and false lessons against the functions that work on the rows themselves."""
    world = load_world(tiny)
    lives = gather(block(world, 1, Plan(1, 8, 1, QUICK, experience=2)))
    rows = run_worlds(world, 8, FIRST + 1, methods_of(world), kinds=kinds_of(world), training=QUICK, lessons=2)
    for method in ("sgd", "map", "common-sense"):
        for n in (1, 10):
            assert lives.gap(method, n)["mean"] == pytest.approx(gap_closed(rows, method, n))
            assert lives.false(method, n)["mean"] == pytest.approx(false_lessons(rows, method, n))
    assert lives.count == 8 and lives.after == AFTER


def test_calibration_is_weighed_over_blocks():
    bins = calibrated(measures(), (3,))[0]
    assert [b["true"] for b in bins["bins"]] == pytest.approx([i / 10 + 0.05 for i in range(10)])
    assert bins["error"] == pytest.approx(0) and all(b["low"] < b["true"] < b["high"] for b in bins["bins"])


def test_a_world_of_ones_own_has_its_own_causes_and_no_scopes_of_the_thesis(tiny):
    world = load_world(tiny)
    kinds = kinds_of(world)
    assert [k.named for k in kinds] == [{}, {"weather": 1}, {"weather": 2}, {"who": 1}]
    assert sum(k.weight for k in kinds) == pytest.approx(1)
    assert not [m for m in methods_of(world) if m.startswith("augment")] and "common-sense" in methods_of(world)
    assert kinds_of(default_world()) == KINDS and len(methods_of(default_world())) == 15


# --- a study without trials -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", BUDGETS)
def test_there_are_no_trials(budget):
    assert STUDY.arms(budget) == []


@pytest.mark.slow
def test_smoke_runs_from_measures_to_page_and_terminal(tmp_path, capsys):
    verdict = api.study("lessons", "smoke", out=tmp_path)
    assert (
        json.loads((tmp_path / VERDICT).read_text()) == verdict and read_evidence(tmp_path / "evidence.parquet") == []
    )
    assert (tmp_path / "index.html").stat().st_size > 1e6
    print_verdict(verdict, tmp_path)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("common-sense", "augment-9", "oracle", "smoke budget"))
    # The stories are the first lives of their kinds, and no others.
    told = verdict["lessons"]["stories"]
    assert [s["kind"] for s in told] == [*CHOSEN]
    drawn = [live(default_world(), seed_for(FIRST, f"story {i}")) for i in range(50)]
    for s in told:
        first = next(life for life in drawn if life.kind == s["kind"])
        assert s["cause"] == describe(first.world, first.cause)
        assert s["incidents"] == [first.world.words(first.world.at(int(e))) for e in first.incidents[:3]]
        assert all(0 < sum(p for _, p in step["believed"]) <= 1 + 1e-9 for step in s["steps"])


def test_a_run_that_was_killed_goes_on_and_a_damaged_part_is_measured_again(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(lessons.PLANS, "smoke", Plan(2, 2, 2, QUICK, experience=2))
    monkeypatch.setattr(Augmentation, "measure", lambda self, *_: reach(0.1, 1.0, seeds=1))
    whole, asked = block, []

    def until(stop):
        def measured(world, number, plan):
            asked.append(number)
            if number == stop:
                raise KeyboardInterrupt
            return whole(world, number, plan)

        monkeypatch.setattr(lessons, "block", measured)

    study, out = STUDIES.parse(f"lessons:world={tiny}"), tmp_path / "out"
    until(1)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, "smoke", out)
    until(None)
    first = run_study(study, "smoke", out)
    assert asked == [0, 1, 1] and first["lessons"]["lives"] == 4
    (damaged,) = (out / "measured").glob(f"{LIVES}-0-*")
    damaged.write_bytes(b"x")
    again = run_study(study, "smoke", out)
    assert asked == [0, 1, 1, 0] and again == first
    assert first["seconds"] is None, "what was gone on with took longer than this run"
    assert run_study(study, "smoke", tmp_path / "anew")["seconds"] is not None
    del asked[4:]
    tiny.write_text(TINY.replace("snow", "hail"))  # another world is measured anew
    run_study(study, "smoke", out)
    assert asked[4:] == [0, 1]
    page = build_report(out).read_text("utf-8")  # without the thesis' fixed augmentations
    assert "weather, level 2" in page and "scope 7 of the thesis" not in page


class Agreeing:
    """A judge that says the first lesson, and what that costs."""

    def __init__(self):
        self.cost = Cost()

    def choose(self, incident, candidates):
        self.cost.calls += 1
        self.cost.tokens += 7
        return (1,)


@pytest.mark.slow
def test_an_opinion_stands_beside_the_learners_own_with_its_cost(tmp_path, monkeypatch):
    plan = Plan(1, 3, 2, Training(steps=20, memory_steps=30), experience=20)
    monkeypatch.setitem(lessons.PLANS, "smoke", plan)
    monkeypatch.setattr(Augmentation, "measure", lambda self, *_: reach(0.1, 1.0, seeds=1))
    monkeypatch.setattr(lessons, "parse_judge", lambda text: Agreeing())
    study = STUDIES.parse("lessons:judge=endpoint:me@https://there/v1")
    asked = run_study(study, "smoke", tmp_path)["lessons"]
    told = asked.pop("judge")
    others = [m for m in read_measures(tmp_path / MEASURES, fingerprint([])) if m["claim"] != JUDGED]
    without = decide(STUDY, "smoke", [], others)["lessons"]
    assert without.pop("judge") is None and without == asked, "all else is as without it"
    assert told["lives"] == 3 and (told["cost"]["calls"], told["cost"]["tokens"]) == (15, 105)
    rows = run_worlds(
        default_world(), 3, FIRST, ("nothing", "common-sense", "oracle"), training=plan.training, lessons=20,
        judge=Agreeing(),
    )  # fmt: skip
    for gap in told["gaps"]:
        assert gap["with"] == pytest.approx(gap_closed(rows, "judged", gap["n"]))
        assert gap["without"] == pytest.approx(gap_closed(rows, "common-sense", gap["n"]))
    page = build_report(tmp_path).read_text("utf-8")
    assert "15 questions, 0 of them failed" in page and "endpoint:me@https://there/v1" in page


# --- the measures are its own -----------------------------------------------------------------------------------------


def test_measures_of_another_version_or_study_and_those_that_lack_lives_are_refused(forty):
    found = measures("minutes")
    for changed in ({"version": 7}, {"claim": "C3"}):
        with pytest.raises(UserError, match="another version"):
            decide(STUDY, "minutes", [], [*found, found[-1] | changed])
    with pytest.raises(UserError, match="39 lives were measured, not 40"):
        decide(STUDY, "minutes", [], [m for m in found if m["claim"] != LIVES or m["seed"]])
    with pytest.raises(UserError, match="nothing is there of what was measured for C11"):
        decide(STUDY, "minutes", [], [m for m in found if m["claim"] != "C11"])
    with pytest.raises(UserError, match="regret of map was not measured in every life"):
        decide(STUDY, "minutes", [], [m for m in found if (m["series"], m["label"], m["seed"]) != ("regret", "map", 3)])
    with pytest.raises(UserError, match=r"^no lesson was not measured"):
        decide(STUDY, "minutes", [], [m for m in found if m["series"] != "no lesson"])
    with pytest.raises(UserError, match="a story is damaged"):
        decide(STUDY, "minutes", [], [m | {"label": "x"} if m["claim"] == STORIES else m for m in found])


def test_trials_are_refused():
    with pytest.raises(UserError, match="without trials"):
        STUDY.verdict("smoke", [], [{"arm": "x"}], measures())


def test_what_is_wrong_with_world_or_judge_is_told_before_anything_is_made(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        run_study(STUDIES.parse(f"lessons:world={tmp_path / 'none.toml'}"), "smoke", tmp_path / "out")
    with pytest.raises(UserError, match="a judge is pretrained"):
        run_study(STUDIES.parse("lessons:judge=foo"), "smoke", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_world_on_the_page_can_be_lived_in(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "lessons.md").read_text("utf-8")
    (tmp_path / "world.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    world = load_world(tmp_path / "world.toml")
    assert {k.name for k in kinds_of(world)} >= {"chance", "place, level 2", "companion, level 1"}
    found = gather(block(world, 0, Plan(1, 1, 1, QUICK, experience=0)))
    assert "common-sense" in found.methods and "augment-7" in found.methods and "augment-1" not in found.methods
