"""The page of the leaderboard: a small study that really ran, its numbers against the evidence, and a real browser."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest
from chromium import HOSTILE, Opened
from playwright.sync_api import Browser

from crevasse import store
from crevasse.errors import UserError
from crevasse.report import board_figures, build_report, figures
from crevasse.report.page import get_plotlyjs
from crevasse.studies import EVIDENCE, VERDICT, decide, read_evidence, rules, run_study
from crevasse.studies.base import write_evidence
from crevasse.studies.leaderboard.benches import ADD_59, CELL, noisy
from crevasse.terminal import print_verdict

Row = dict[str, Any]
#: Of this rule of the user's not even the name may become markup.
MINE = "<script>alert(1)<b>.py"
SIGNED = """
from dataclasses import dataclass
from typing import ClassVar
from crevasse.rules import BaseRule

@dataclass(frozen=True)
class Signed(BaseRule):
    name: ClassVar[str] = "signed"
    lr: float = 0.01
    def init(self, weights, layout): return {}
    def rate(self, step): return self.lr * step.scale
    def apply(self, gradient, weights, state, step): return weights - self.rate(step) * gradient.sign(), state
"""
STEPS = 20


def stands(_: str) -> list[rules.Stand]:
    """The table and the cell with two sizes, all of them far smaller than they are."""
    table = replace(ADD_59, task="modular:p=23", steps=STEPS, batch=264, train=264, probe_every=5)
    cell = replace(CELL, task="iterated-product:p=7,T=1-3,beyond=4", train=120, steps=STEPS, batch=32, probe_every=5)
    return [
        rules.Stand(table, ("adamw", "perp"), 2),
        rules.Stand(cell, ("adamw",), 2),
        rules.Stand(replace(cell, name="cell-500", train=60, tuned=cell.name), ("adamw",), 2),
        rules.Stand(noisy(table, 1, tuned=table.name), ("adamw", "perp"), 2),
    ]


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rules, "_stands", stands)
        yield


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[rules.RulesStudy, list[Row]]:
    """A study that ran, and its evidence, in which perp is made to find the rule of the table with one of two seeds."""
    out = tmp_path_factory.mktemp("ran")
    mine = out / MINE
    mine.write_text(SIGNED)
    study = rules.RulesStudy(rule=str(mine))
    run_study(study, "smoke", out / "study", workers=1)
    rows = read_evidence(out / "study" / EVIDENCE)
    found = next(r for r in rows if r["phase"] == "test" and r["arm"] == "add-59/perp")
    found["curve_held_out_exact"][-2:] = [0.96, 0.97]
    found["s_max"], found["lockstep"] = 0.9, 0.8
    rows[-1] |= {"notes": json.dumps([HOSTILE]), "environment": json.dumps({HOSTILE: HOSTILE})}
    return study, rows


def folder(path: Path, ran: tuple[rules.RulesStudy, list[Row]]) -> Path:
    """Evidence and verdict as the study leaves them."""
    path.mkdir(parents=True, exist_ok=True)
    study, rows = ran
    write_evidence(path / EVIDENCE, rows)
    store.write_json(path / VERDICT, decide(study, "smoke", read_evidence(path / EVIDENCE)) | {"seconds": 12.0})
    return path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory, ran: tuple[rules.RulesStudy, list[Row]]) -> Path:
    return build_report(folder(tmp_path_factory.mktemp("page"), ran))


@pytest.fixture(scope="module")
def text(page_file: Path) -> str:
    return page_file.read_text("utf-8").replace(get_plotlyjs(), "")


def tables(text: str) -> dict[str, dict[str, dict[str, str]]]:
    """bench (or "rules") -> rule -> heading -> what stands there."""
    found = {}
    some = re.findall(r'<span class="code">([\w-]+)</span></h3>.*?(<table.*?</table>)', text, re.S)
    some += [("rules", table) for table in re.findall(r'<table[^>]*id="rules".*?</table>', text, re.S)]
    for name, table in some:
        heads, *lines = (
            [" ".join(re.sub(r"<[^>]*>", " ", c).split()) for c in re.findall(r"<t[hd][ >].*?</t[hd]>", tr, re.S)]
            for tr in re.findall(r"<tr.*?</tr>", table, re.S)
        )
        found[name] = {line[0]: dict(zip(heads, line, strict=True)) for line in lines}
    return found


def two(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")


def trials_of(rows: list[Row]) -> dict[tuple[str, str], list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for r in rows:
        if r["phase"] == "test":
            bench, _, rule = r["arm"].partition("/")
            found.setdefault((bench, rule), []).append(r)
    return found


def escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace(">", "&gt;")


def test_every_rule_of_every_bench_has_a_row_and_numbers_are_those_of_the_evidence(text: str, ran: Any) -> None:
    shown, trials = tables(text), trials_of(ran[1])
    assert {(b, r) for b in shown if b != "rules" for r in shown[b]} == {(b, escaped(r)) for b, r in trials}
    assert {*shown["rules"]} == {escaped(r) for _, r in trials}
    for (bench, rule), rows in trials.items():
        cells = shown[bench][escaped(rule)]
        random = bench.endswith("-random")
        # Of two seeds the interquartile mean is the mean.
        memory = two(mean(r["train"] for r in rows))
        assert cells["memory" if random else "train"].split()[0] == memory, (bench, rule)
        head = "random" if "cell" in bench else "held-out"
        assert cells[head].split()[0] == two(mean(r["random"] for r in rows)), (bench, rule)
        learned = median(r["s_max"] for r in rows) >= 0.5
        assert cells["lockstep"].startswith("did not learn") == (not learned)
        assert two(mean(r["s_max"] for r in rows)) in cells["lockstep"].partition("max")[2]
        assert ("found" in cells) == (not random)
        if not random:
            found = sum(r["curve_held_out_exact"][-1] >= 0.95 for r in rows)
            assert cells["found"] == f"{found}/2"
            assert (cells["steps"] == "–") == (not found)


def test_what_it_took_is_read_where_validation_first_was_good_enough(text: str, ran: Any) -> None:
    row = next(r for r in trials_of(ran[1])["add-59", "perp"] if r["curve_held_out_exact"][-1] >= 0.95)
    cells = tables(text)["add-59"]["perp"]
    assert cells["steps"] == f"{row['curve_step'][-2]:,}"
    assert cells["samples"] == f"{row['curve_samples'][-2]:,.0f}"
    # Perp looks once at each row, so its passes in plain steps are its steps.
    assert cells["passes"] == cells["steps"]
    assert cells["found"] == "1/2"
    assert "no difference seen" in cells["against adamw"]  # two seeds allow no less than p = .5


def test_over_all_benches(text: str, ran: Any) -> None:
    shown = tables(text)["rules"]
    assert shown["perp"]["failure rate"] == ".50 of 2 seeds"
    assert shown["adamw"]["failure rate"] == "1.00 of 6 seeds"
    assert shown["adamw"]["N*"] == "none tried" and shown["perp"]["N*"] == "–"
    assert shown["adamw"]["against adamw"] == "the baseline"
    assert shown["adamw"]["time"] == shown["adamw"]["passes a step"] == "1.0×"
    remembered = mean(r["train"] for r in trials_of(ran[1])["add-59-random", "perp"])
    assert shown["perp"]["memory: add-59-random"].split()[0] == two(remembered)
    assert "No rule differs significantly from adamw" in text


def test_a_rule_that_is_worse_says_so_in_words(tmp_path: Path, ran: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    where = folder(tmp_path, ran)
    monkeypatch.setattr("crevasse.studies.leaderboard.board.paired", lambda a, b: {"difference": 1.0, "p": 0.0, "n": 9})
    text = build_report(where).read_text("utf-8")
    assert "<b>Significantly worse than adamw</b>: " in text
    assert tables(text)["rules"]["perp"]["against adamw"].startswith("worse: later, or not at all 1.00 budgets")


def test_budgets_and_tries_are_said_in_words(text: str) -> None:
    plain = " ".join(re.sub(r"<[^>]*>", "", text).split())
    said = "20 steps of 264 rows, or what costs as much; N = 264; 3 settings each, picked by validation"
    assert said in plain
    assert "N = 60; settings as picked on cell-2000; 2 seeds." in plain
    tries = re.findall(r'<table class="tries">(.*?)</table>', text, re.S)
    assert [t.count("<tr") for t in tries] == [3, 2]
    assert all(3 * t.count('class="picked"') == t.count("<td") == 3 * t.count("<tr") for t in tries)
    assert "crevasse study" in text and "--budget smoke" in text


def test_foreign_text_never_becomes_markup(text: str) -> None:
    assert "<script>alert" not in text and "<img" not in text
    assert text.count("</script>") == 3  # data, plotly, ours
    assert escaped(MINE) in text and "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in text


# --- evidence of something else ------------------------------------------------------------------------------------


def other_config(rows: list[Row]) -> None:
    rows[0]["config"] = json.dumps(json.loads(rows[0]["config"]) | {"steps": 9999})


def other_try(rows: list[Row]) -> None:
    rows[0]["trial"] = "0" * 12


def other_test(rows: list[Row]) -> None:
    rows[-1]["trial"] = "0" * 12


def better_tries(rows: list[Row]) -> None:
    """Validation of a try that was not picked becomes the best: then another setting should have been tested."""
    picked = next(r["rule"] for r in rows if r["phase"] == "test" and r["arm"] == "add-59/adamw")
    other = next(r for r in rows if r["arm"].startswith("add-59/adamw/") and r["rule"] != picked)
    other["curve_held_out_exact"] = [1.0] * len(other["curve_held_out_exact"])


SPOILED: dict[str, tuple[Callable[[list[Row]], Any], str]] = {
    "another config": (other_config, "not that of this leaderboard"),
    "another try": (other_try, "not that of this leaderboard"),
    "another trial": (other_test, "not that of this leaderboard"),
    "a setting that was not picked": (better_tries, "not that of this leaderboard"),
    "a missing try": (lambda rows: rows.pop(0), "lacks 1 trials"),
    "a missing test": (lambda rows: rows.pop(), "do not belong together"),
    "a trial twice": (lambda rows: rows.insert(0, rows[0]), "not that of this leaderboard"),
    "a config that is no JSON": (lambda rows: rows[0].update(config="{"), "the config of"),
    "curves of different lengths": (lambda rows: rows[0]["curve_passes"].pop(), "the curves of"),
    "a number that is missing": (lambda rows: rows[0].update(passes=None), "a number of"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_evidence_of_something_else_is_refused_in_one_line(tmp_path: Path, ran: Any, name: str) -> None:
    spoil, reason = SPOILED[name]
    where = folder(tmp_path, ran)
    rows = read_evidence(where / EVIDENCE)
    spoil(rows)
    write_evidence(where / EVIDENCE, rows)
    with pytest.raises(UserError) as error:
        build_report(where)
    assert reason in str(error.value) and "\n" not in str(error.value)
    assert not (where / "index.html").exists()


def test_a_verdict_of_a_study_without_a_board_is_refused(tmp_path: Path, ran: Any) -> None:
    where = folder(tmp_path, ran)
    verdict = json.loads((where / VERDICT).read_text())
    store.write_json(where / VERDICT, verdict | {"study": "factorial"})
    with pytest.raises(UserError, match="factorial"):
        build_report(where)


def test_the_board_is_made_again_from_the_evidence(tmp_path: Path, ran: Any, text: str) -> None:
    where = folder(tmp_path, ran)
    verdict = json.loads((where / VERDICT).read_text())
    store.write_json(where / VERDICT, verdict | {"board": {"benches": [], "rules": []}, "answer": "All rules win."})
    assert build_report(where).read_text("utf-8").replace(get_plotlyjs(), "") == text


# --- pictures --------------------------------------------------------------------------------------------------------


def test_the_path_of_a_rule_is_that_of_the_seed_with_the_median_lockstep(ran: Any) -> None:
    rows = [{"lockstep": v, "seed": i} for i, v in enumerate((0.3, None, 0.9, -1.0, 0.4))]
    assert board_figures.middle(rows)["seed"] == 0
    assert board_figures.middle(rows[:2])["seed"] == 1
    trials = trials_of(ran[1])["cell-2000", "adamw"]
    bench = {"entries": [{"rule": "adamw"}]}
    (trace,) = board_figures.paths(bench, {"adamw": trials})["data"]
    row = min(trials, key=lambda r: r["lockstep"])  # the lower of two
    s = [(row["uniform_loss"] - v) / row["uniform_loss"] for v in row["curve_train"]]
    assert [p[1] for p in trace["customdata"]] == pytest.approx(s, abs=1e-4)
    assert trace["line"]["color"] == figures.rgb("ink")


def test_the_data_curve_has_the_rules_with_two_sizes_and_their_intervals() -> None:
    def entry(rule: str, at: float) -> Row:
        score = {"mean": at, "low": at - 0.1, "high": at + 0.05, "n": 5}
        return {"rule": rule, "held_out": score, "chance": 1 / 12}

    benches = [
        {"section": "cell", "train": 5000, "entries": [entry("race", 0.9), entry("once", 0.5)]},
        {"section": "cell", "train": 500, "entries": [entry("race", 0.3)]},
        {"section": "tables", "train": 50, "entries": [entry("once", 0.3)]},
    ]
    picture = board_figures.data_curve(benches)
    assert picture is not None
    (trace,) = picture["data"]
    assert trace["x"] == [500, 5000] and trace["y"] == [0.3, 0.9]
    assert trace["error_y"]["array"] == pytest.approx([0.05, 0.05])
    assert trace["error_y"]["arrayminus"] == pytest.approx([0.1, 0.1])
    assert picture["layout"]["shapes"][0]["y0"] == pytest.approx(1 / 12)
    assert board_figures.data_curve(benches[1:]) is None


def test_labels_stay_inside_their_picture() -> None:
    placed = board_figures.apart([1, 1, 1, 0], 0.1, 0, 1)
    assert sorted(placed) == pytest.approx([0, 0.8, 0.9, 1])
    assert board_figures.apart([0, 0], 0.1, 0, 1) == pytest.approx([0, 0.1])


def test_the_page_opens_draws_both_pictures_and_switches_benches(browser: Browser, page_file: Path) -> None:
    opened = Opened(browser, page_file)
    page = opened.page
    opened.scroll_through()
    seen = "[...document.querySelectorAll('[data-picture]')].filter(h => h.querySelector('path.js-line'))"
    assert page.evaluate(f"{seen}.length") == 2  # the cell, and the data curve
    assert page.locator(".pane:visible .caption").all_inner_texts() == [
        "the crevasse cell, N = 2,000",
        "the crevasse cell",
    ]
    assert page.get_by_role("radio").count() == 4
    page.locator("#benches label", has_text="add-59").first.click()
    page.locator(".pane:visible path.js-line").first.wait_for()
    captions = page.locator(".pane:visible .caption").all_inner_texts()
    assert captions == ["a + b mod 59, a small MLP", "the crevasse cell"]  # the data curve stays
    page.keyboard.press("ArrowRight")
    assert page.locator(".pane:visible .caption").all_inner_texts()[0] != "a + b mod 59, a small MLP"
    page.get_by_role("columnheader", name="time").get_by_role("button").click()
    times = page.locator("#rules tbody tr td:nth-last-child(2)").all_inner_texts()
    assert len(times) == 3 and times == sorted(times)
    page.emulate_media(media="print")
    assert page.evaluate("document.images.length") == 0
    assert opened.trouble == []
    assert {u.split(":")[0] for u in opened.requests} == {"file"}
    opened.context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_only_tables_scroll_sideways(browser: Browser, page_file: Path, width: int) -> None:
    opened = Opened(browser, page_file, viewport={"width": width, "height": 844})
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    opened.scroll_through()
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    wide = opened.page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, .tabs, svg')"
        f" && e.getBoundingClientRect().right > {width + 1}).map(e => e.tagName + '.' + e.className)"
    )
    assert wide == []
    opened.context.close()


# --- in a terminal -----------------------------------------------------------------------------------------------


def test_the_terminal_tells_the_first_rules_of_a_bench_the_baseline_and_ones_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    half = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 5}

    def entry(rule: str, reached: int) -> Row:
        return {"rule": rule, "seeds": 5, "reached": reached, "rows_to": 51200.0 if reached else None, "learned": True,
                "held_out": half, "train": half, "lockstep": half, "s_max": half}  # fmt: skip

    names = [f"rule-{i}" for i in range(8)] + ["adamw", "file:[bold]my.py", "sgd"]
    entries = [entry(name, 5 - i if i < 5 else 0) for i, name in enumerate(names)]
    board = {"benches": [{"title": "a bench", "batch": 256, "entries": entries}]}
    verdict = {"answer": "An answer.", "board": board, "arms": [], "budget": "full", "seconds": 1.0}
    print_verdict(verdict, Path("out"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    told = [line[1] for line in lines if line and line[0].isdigit() and len(line) > 5]
    assert told == [*names[:5], "adamw", "file:[bold]my.py"]
    assert ["1", "rule-0", ".50", "[.40–.60]", ".50", "5/5", "100", ".50", ".50"] in lines
    assert ["…", "of", "11", "rules"] in lines
