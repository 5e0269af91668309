"""The report: what it says of the evidence, and what a person sees of it in a real browser."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
from chromium import HOSTILE, Opened
from playwright.sync_api import Browser, Page

from crevasse import report, store
from crevasse.errors import UserError
from crevasse.formats.faults import Kind
from crevasse.report import arms as arms_page
from crevasse.report import build_report, figures
from crevasse.report.page import get_plotlyjs, score_text, time_text
from crevasse.studies import EVIDENCE, VERDICT, decide, read_evidence
from crevasse.studies.base import Arm, Budget, Study, write_evidence
from crevasse.tasks import TESTS

L0 = 2.5


@dataclass(frozen=True)
class Stub(Study):
    name: ClassVar[str] = "stub"
    question: ClassVar[str] = "Is it <the> question?"

    def arms(self, budget: Budget) -> list[Arm]:
        return []

    def answer(self, arms: Sequence[dict[str, Any]]) -> str:
        return f"{len(arms)} arms & a sentence."


#: kind -> train, held-out exact match, and the held-out loss at the end
KINDS = {"rule": (1.0, 0.98, 0.1), "memory": (1.0, 0.1, 7.0), "nothing": (0.2, 0.05, 2.4), "part": (1.0, 0.5, 1.2)}


def row(arm: str, kind: str, seed: int = 0, **over: Any) -> dict[str, Any]:
    """A trial as it stands in the evidence. The curves fall smoothly, so a memorising arm does so throughout."""
    done = kind != "diverged"
    train, held_out, end = KINDS.get(kind, (None, None, math.nan))
    t = np.linspace(0, 1, 12)
    low = 2.3 if kind == "nothing" else 0.01
    sample = {"problem": "2 3 =", "written": "6 <end>", "answer": "6", "expected": "6", "correct": True,
              "unreadable": []}  # fmt: skip
    wrong = sample | {"written": "7", "answer": None, "correct": False, "unreadable": ["<multiply> 2 2 2"]}
    jitter = 0.01 * seed
    return {
        "phase": "test", "arm": arm, "title": f"title of {arm}", "group": "group one", "trial": f"{arm}-{seed}",
        "status": "done" if done else "diverged", "task": "iterated-product", "format": "direct",
        "model": "transformer", "rule": "adamw", "labels": "true", "config": json.dumps({"seed": seed, "arm": arm}),
        "environment": json.dumps({"python": "3.11"}), "notes": "[]",
        "outputs": json.dumps({"train": [sample], "random": [sample, wrong]} if done else {}),
        "seed": seed, "steps": 110, "moved_steps": 110, "samples": 1000, "parameters": 12345, "examples": 200,
        "unreadable_calls": 0, "train": train, "random": held_out and held_out - jitter, "interpolation": None,
        "extrapolation": held_out and held_out / 2,
        **{f"{k}_{s}": (v if done and s != "interpolation" else None) for s in TESTS
           for k, v in {"ceiling": 0.97, "majority": 0.12, "lookup": 0.1, "nearest": 0.1, "rule_score": 0.3}.items()},
        "chance": 0.08, "lockstep": 0.9 if kind == "rule" else -0.5, "s_max": 0.1 if kind == "nothing" else 0.99,
        "memorising": 0.7, "uniform_loss": L0, "passes": 220.0, "seconds": 3.5,
        "faults": "{}", "padding": 0.0, "memory": None, "peak_memory": None,
        "curve_step": [int(s) for s in 110 * t] if done else [0],
        "curve_train": (L0 * low**t + jitter).tolist() if done else [None],
        "curve_held_out": (L0 + (end - L0) * t).tolist() if done else [None],
    } | over  # fmt: skip


def study(folder: Path, rows: list[dict[str, Any]], seconds: float | None = 12.0) -> Path:
    """A study's folder with evidence and verdict, and nothing else."""
    folder.mkdir(exist_ok=True, parents=True)
    write_evidence(folder / EVIDENCE, rows)
    verdict = decide(Stub(), "smoke", read_evidence(folder / EVIDENCE))
    verdict["seconds"] = seconds
    store.write_json(folder / VERDICT, verdict)
    return folder


def everything() -> list[dict[str, Any]]:
    """All findings, several seeds, two groups, and text that attacks wherever text can stand."""
    bad = {"problem": HOSTILE, "written": HOSTILE, "answer": HOSTILE, "expected": HOSTILE, "correct": False,
           "unreadable": [HOSTILE],
           "fault": {"kind": HOSTILE, "token": HOSTILE, "expected": HOSTILE, "written": HOSTILE}}  # fmt: skip
    attack = dict.fromkeys(("title", "task", "format", "model", "rule", "labels", "trial"), HOSTILE) | {
        "notes": json.dumps([HOSTILE]), "outputs": json.dumps({"random": [bad], HOSTILE: [bad]}),
        "config": json.dumps({HOSTILE: HOSTILE}), "environment": json.dumps({HOSTILE: HOSTILE}),
    }  # fmt: skip
    return [
        *(row("finds", "rule", s) for s in range(3)),
        *(row("remembers", "memory", s, group="group two") for s in range(3)),
        row("halfway", "part", group="group two", extrapolation=0.9),
        row("sleeps", "nothing", group="group two"),
        row("bursts", "diverged", group=HOSTILE),
        row("x" + HOSTILE, "memory", group=HOSTILE, **attack),
    ]


# --- what the page says: no browser ----------------------------------------------------------------------------


def html_of(tmp_path: Path, rows: list[dict[str, Any]]) -> str:
    text = build_report(study(tmp_path / "study", rows)).read_text("utf-8")
    # plotly's own source says all sorts of words; leave it out of what is searched.
    return text.replace(get_plotlyjs(), "")


def test_one_file_built_from_evidence_and_verdict_alone(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", everything())
    assert build_report(folder) == folder / "index.html"
    assert {p.name for p in folder.iterdir()} == {EVIDENCE, VERDICT, "index.html"}
    first = (folder / "index.html").read_bytes()
    build_report(folder)
    assert (folder / "index.html").read_bytes() == first


def test_foreign_text_never_becomes_markup(tmp_path: Path) -> None:
    text = html_of(tmp_path, everything())
    assert "<img" not in text
    assert "<script>alert" not in text
    assert text.count("</script>") == 3  # data, plotly, ours
    assert "\u2028" not in re.findall(r'<script type="application/json".*?</script>', text, re.S)[0]
    # visible, as what it is, in headings, samples, notes, configs and environment
    assert text.count("&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;") > 15


def test_a_lone_surrogate_does_not_stop_the_report(tmp_path: Path) -> None:
    outputs = '{"random": [{"problem": "a\\ud800b", "written": "", "expected": "", "correct": false}]}'
    assert "a?b" in html_of(tmp_path, [row("one", "memory", outputs=outputs)])


def test_only_our_scripts_may_run(tmp_path: Path) -> None:
    text = build_report(study(tmp_path / "s", [row("one", "rule")])).read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src &#39;none&#39;" in policy[1]
    assert policy[1].count("sha256-") == 2
    assert "http://" not in policy[1]
    assert "https://" not in policy[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.083, ".08"), (1, "1.00"), (-0.404, "−.40"), (-1.149, "−1.15"), (0, ".00"), (-0.001, ".00"), (None, "–"),
     (math.nan, "–"), ("x", "–")],
)  # fmt: skip
def test_scores_are_written_without_their_leading_zero(value: Any, text: str) -> None:
    assert score_text(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(3.46, "3.5 s"), (26.3, "26 s"), (300, "5 min"), (9000, "2.5 h")])
def test_times_are_written_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def cells(text: str, arm: str) -> list[str]:
    """The text of each cell of an arm's row."""
    found = next(r for r in re.findall(r'<tr class="arm">(.*?)</tr>', text, re.S) if f">{arm}<" in r)
    plain = [re.sub(r"<[^>]*>", " ", c) for c in re.findall(r"<t[dh][ >].*?</t[dh]>", found, re.S)]
    return [" ".join(p.split()) for p in plain]


def test_the_table_gives_interval_chance_ceiling_and_the_better_guess(tmp_path: Path) -> None:
    text = html_of(tmp_path, everything())
    found = cells(text, "finds")
    assert found[1] == "found the rule"
    assert found[2] == "1.00 [1.00–1.00] chance .08"
    assert found[3] == ".97 [.96–.98] chance .08 · ceiling .97 majority answer .12"
    assert found[4] == "–"
    assert found[6] == ".30 [.30–.30]"
    assert found[7] == ".90 [.90 to .90] s max .99"
    assert found[9:] == ["220", "3.5 s"]
    assert cells(text, "halfway")[3] == ".50 chance .08 · ceiling .97 majority answer .12"  # one seed: no interval


def test_below_half_way_the_lockstep_score_reads_did_not_learn(tmp_path: Path) -> None:
    found = cells(html_of(tmp_path, everything()), "sleeps")
    assert found[1] == "did not learn"
    assert found[7] == "did not learn s max .10"


def test_a_diverged_arm_has_dashes_and_a_seed_that_diverged_is_counted(tmp_path: Path) -> None:
    rows = [row("gone", "diverged"), row("mixed", "rule", 0), row("mixed", "diverged", 1)]
    text = html_of(tmp_path, rows)
    assert cells(text, "gone")[1:7] == ["diverged", "–", "–", "–", "–", "–"]
    assert cells(text, "mixed")[1] == "found the rule 1 of 2 diverged"


def test_the_command_that_repeats_the_study_is_there(tmp_path: Path) -> None:
    text = html_of(tmp_path, [row("one", "rule")])
    assert "crevasse study stub --budget smoke" in text
    assert "1 arm<" in text.replace("<b>1</b> arm", "1 arm")


def test_the_splits_are_those_of_the_tasks() -> None:
    assert arms_page.SPLITS == TESTS


# --- where traces break --------------------------------------------------------------------------------------------

CHAIN = "22*21=462\n462*20=9241\n9241*19=175579\nThe answer is 175579."


def traced(arm: str, kind: str = "memory", seed: int = 0, **over: Any) -> dict[str, Any]:
    """A trial whose outputs are traces, which break in several places; the first sample is of two lines and more."""
    bad = {"problem": "22! step by step:\n", "written": CHAIN, "answer": "175579", "expected": "1.124001e+21",
           "correct": False, "unreadable": [], "fault": {"kind": "result", "token": 17,
           "expected": "9240\n9240*19", "written": "9241\n9241*19"}}  # fmt: skip
    good = {"problem": "1 =", "written": "1<end>", "answer": "1", "expected": "1", "correct": True, "unreadable": [],
            "fault": None}  # fmt: skip
    return row(arm, kind, seed) | {
        "format": "trace:steps=calls", "outputs": json.dumps({"train": [good], "random": [good, bad]}),
        "faults": json.dumps({"train": {}, "random": {"result": 6, "copying": 2}, "extrapolation": {"answer": 1}}),
    } | over  # fmt: skip


def broken() -> list[dict[str, Any]]:
    """Two arms that write steps, of which one has the rule; and one that answers at once."""
    at_once = {"faults": json.dumps({"train": {}, "random": {"answer": 90}})}
    finds = {"faults": json.dumps({"train": {}, "random": {}, "extrapolation": {"start": 3}})}
    return [traced("steps", seed=0), traced("steps", seed=1), traced("right", "rule", **finds),
            row("direct", "memory", **at_once)]  # fmt: skip


def plain(text: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", "", text).split())


def test_every_kind_of_fault_has_words_and_a_colour() -> None:
    assert {*figures.FAULTS} == {*get_args(Kind), "other"}
    assert all(f"fault-{kind}" in figures.COLOURS for kind in figures.FAULTS)
    sheet = (Path(report.__file__).parent / "report.css").read_text()
    assert all(f"var(--fault-{kind})" in sheet for kind in figures.FAULTS)


def test_writing_on_every_bar_can_be_read_in_light_and_in_dark() -> None:
    sheet = (Path(report.__file__).parent / "report.css").read_text()
    for colours in re.findall(r":root \{(.*?)\n *\}", sheet, re.S)[:2]:
        seen = {
            name: tuple(map(int, rgb)) for name, *rgb in re.findall(r"--([\w-]+): rgb\((\d+), (\d+), (\d+)\)", colours)
        }
        pairs = [("rule", "paper"), *((f"fault-{k}", role) for k, (_, _, role) in figures.FAULTS.items())]
        low = {p: contrast(seen[p[0]], seen[p[1]]) for p in pairs}
        assert {p: c for p, c in low.items() if c < 4.5} == {}


def contrast(a: Sequence[int], b: Sequence[int]) -> float:
    """As WCAG defines it."""

    def light(colour: Sequence[int]) -> float:
        parts = [c / 255 for c in colour]
        r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    high, low = sorted((light(a), light(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_what_is_wrong_of_a_bar_is_divided_as_the_faults_are() -> None:
    bars = [("train", 1.0, {"form": 2}), ("random", 0.2, {"result": 6, "copying": 2}), ("extrapolation", 0.5, {})]
    data = figures.breaks("<b>x", bars)["data"]
    found = {t["marker"]["color"]: t["x"] for t in data}
    assert found == {
        figures.rgb("rule"): [1, 0.2, 0.5],
        figures.rgb("fault-copying"): [0, 0.2, 0],
        figures.rgb("fault-result"): [0, 0.6, 0],
        figures.rgb("fault-form"): [0, 0, 0],  # right all the same
    }
    assert [t["customdata"] for t in data[1:3]] == [[[0, 2], [2, 8], [0, 0]], [[0, 2], [6, 8], [0, 0]]]
    assert {t["meta"][0] for t in data} == {"&lt;b&gt;x"}


def only(**kinds: int) -> dict[str, Any]:
    return {"bars": [("train", 0.5, {"form": 99}), ("random", 0.5, kinds)]}


@pytest.mark.parametrize(
    ("arms", "sentence"),
    [
        ([only(start=12), only(copying=5)],
         "Of the held-out traces that went wrong, most broke at the first value: 12 of 17."),
        ([only(start=3, copying=4, form=3)],
         "Of the held-out traces that went wrong, the largest part broke at copying a value: 4 of 10."),
        ([only(stopping=4)], "Of the held-out traces that went wrong, all broke at knowing when to stop: 4 of 4."),
        ([only(operand=2, result=2)],
         "Of the 4 held-out traces that went wrong, 2 each broke at the next operand and at the result of a step."),
        ([only(answer=1)], "The one held-out trace that went wrong broke at the final answer."),
        ([only()], "Of the training traces that went wrong, all broke at the way steps are written: 99 of 99."),
    ],
)  # fmt: skip
def test_the_sentence_on_top_is_computed(arms: list[dict[str, Any]], sentence: str) -> None:
    found = arms_page._breaks(arms)
    assert found is not None and found["sentence"] == sentence


def test_without_faults_inside_a_trace_there_is_no_such_section(tmp_path: Path) -> None:
    at_once = row("direct", "memory", faults=json.dumps({"train": {}, "random": {"answer": 90}}))
    text = html_of(tmp_path, [at_once, row("finds", "rule")])
    assert "Where the traces break" not in text
    assert "where a trace breaks" not in text


def test_a_kind_and_a_split_that_are_not_known_stay_text(tmp_path: Path) -> None:
    faults = json.dumps({"random": {HOSTILE: 3}, HOSTILE: {"start": 99}})
    text = html_of(tmp_path, [traced("one", faults=faults)])
    assert "all broke at something else: 3 of 3" in text
    assert "<img" not in text and text.count("</script>") == 3


def test_evidence_and_verdict_of_before_have_no_faults_and_no_memory(tmp_path: Path) -> None:
    folder = study(tmp_path / "s", broken())
    rows = [{**r, **dict.fromkeys(("faults", "padding", "memory", "peak_memory"))} for r in broken()]
    for r in rows:
        outputs = json.loads(r["outputs"])
        for o in (o for some in outputs.values() for o in some):
            o.pop("fault", None)
        r["outputs"] = json.dumps(outputs)
    verdict = json.loads((folder / VERDICT).read_text())
    for a in verdict["arms"]:
        del a["faults"]
    write_evidence(folder / EVIDENCE, rows)
    store.write_json(folder / VERDICT, verdict)
    text = build_report(folder).read_text("utf-8")
    assert all(words not in text for words in ("Where the traces break", "first goes wrong", "GiB estimated"))
    assert CHAIN.split("\n")[0] in text


@pytest.mark.parametrize(
    ("written", "fault", "sound"),
    [
        ("2*1=2#2", {"token": 2, "written": "1=2#2"}, "2*"),
        ("1*1=1*1=1", {"token": 4, "written": "1*1=1"}, "1*1="),  # twice there: the token tells, one a character
        ("3 5 5 5 5 # 5", {"token": 2, "written": "5 5"}, "3 5 "),  # or set apart by spaces
        ("aa aa", {"token": 99, "written": "aa"}, "aa aa"),  # cannot be told: nothing is marked
        ("aa", {"token": "x", "written": ""}, "aa"),
        ("aa", {"token": 0, "written": "never written"}, "aa"),
    ],
)
def test_an_output_is_cut_where_it_goes_wrong(written: str, fault: dict[str, Any], sound: str) -> None:
    o = arms_page._sample({"written": written, "answer": None, "fault": {"kind": "copying", "expected": "7"} | fault})
    assert (o["sound"], o["sound"] + o["rest"]) == (sound, written)


def test_a_wrong_answer_alone_is_not_explained_twice() -> None:
    fault = {"kind": "answer", "token": 0, "expected": "6<end>", "written": "7<end>"}
    assert arms_page._sample({"written": "7<end>", "answer": "7", "fault": fault})["fault"] is None
    assert arms_page._sample({"written": "2*3=6#7<end>", "answer": "7", "fault": fault | {"token": 6}})["fault"]


def test_a_right_output_is_not_said_to_go_wrong() -> None:
    fault = {"kind": "form", "token": 0, "expected": "6", "written": " 6"}
    assert arms_page._sample({"written": " 6", "answer": "6", "correct": True, "fault": fault})["fault"] is None


def test_an_output_that_ends_too_early_is_said_to_end(tmp_path: Path) -> None:
    bad = {"problem": "3!", "written": "3*2", "answer": None, "expected": "6", "correct": False, "unreadable": [],
           "fault": {"kind": "result", "token": 3, "expected": "=6#6<end>", "written": ""}}  # fmt: skip
    text = plain(html_of(tmp_path, [traced("one", outputs=json.dumps({"random": [bad]}))]))
    assert "first goes wrong at the result of a step: it ends where “=6#6&lt;end&gt;” was due" in text


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"memory": 1.5 * 2**30, "peak_memory": 2.04 * 2**30, "padding": 0.09},
         "memory: about 1.5 GiB estimated, 2.0 GiB at most; 9% of the tokens computed were padding"),
        ({"memory": 300 * 2**20}, "memory: about 300 MiB estimated<"),
        ({"peak_memory": 2**30}, "memory: 1.0 GiB at most<"),
        ({"padding": 0.001}, "facts\">under 1% of the tokens computed were padding"),
    ],
)  # fmt: skip
def test_memory_and_padding_are_among_the_facts(tmp_path: Path, over: dict[str, Any], said: str) -> None:
    assert said in html_of(tmp_path, [row("one", "rule", **over)])


def test_unknown_memory_is_not_mentioned(tmp_path: Path) -> None:
    text = html_of(tmp_path, [row("one", "rule")])
    assert '"facts">memory' not in text and "padding</p>" not in text


# --- bad input ---------------------------------------------------------------------------------------------------


def spoil_verdict(change: Any) -> Any:
    def spoil(folder: Path) -> None:
        verdict = json.loads((folder / VERDICT).read_text())
        (folder / VERDICT).write_text(json.dumps(change(verdict) or verdict))

    return spoil


def spoil_row(**over: Any) -> Any:
    return lambda f: write_evidence(f / EVIDENCE, [row("one", "rule", **over), row("two", "memory")])


SPOILED = {
    "no evidence": (lambda f: (f / EVIDENCE).unlink(), "no such file"),
    "damaged evidence": (lambda f: (f / EVIDENCE).write_bytes(b"PAR1 is not enough"), "damaged"),
    "empty evidence": (lambda f: write_evidence(f / EVIDENCE, []), "no trials"),
    "no verdict": (lambda f: (f / VERDICT).unlink(), "is missing"),
    "damaged verdict": (lambda f: (f / VERDICT).write_text('{"study": '), "is damaged"),
    "a verdict that is a list": (spoil_verdict(lambda v: [v]), "not the verdict"),
    "a verdict without arms": (spoil_verdict(lambda v: {k: x for k, x in v.items() if k != "arms"}), "no list of arms"),
    "an arm without its score": (spoil_verdict(lambda v: v["arms"][0].pop("train") and None), "train"),
    "a score without its mean": (spoil_verdict(lambda v: v["arms"][0]["train"].pop("mean") and None), "scores"),
    "an unknown finding": (spoil_verdict(lambda v: v["arms"][0].update(finding="luck")), "finding"),
    "faults that are no counts": (spoil_verdict(lambda v: v["arms"][0].update(faults={"random": 3})), "faults"),
    "an arm too few": (spoil_verdict(lambda v: v["arms"].pop() and None), "belong together (they differ in two"),
    "a seed too many": (spoil_verdict(lambda v: v["arms"][0].update(seeds=9)), "belong together (they differ in one"),
    "another name": (spoil_verdict(lambda v: v["arms"][0].update(arm="three")), "belong together"),
    "outputs that are no JSON": (spoil_row(outputs="{"), "outputs of one"),
    "a config that is null": (spoil_row(config=None), "config of one"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILED)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path: Path, name: str) -> None:
    spoil, reason = SPOILED[name]
    folder = study(tmp_path / "s", [row("one", "rule"), row("two", "memory")])
    spoil(folder)
    with pytest.raises(UserError) as error:
        build_report(folder)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert not (folder / "index.html").exists()


# --- the pictures as numbers --------------------------------------------------------------------------------------


def test_memorising_spans_are_where_train_falls_and_held_out_rises_and_neighbours_merge() -> None:
    step = np.array([0, 10, 20, 30, 40, 50.0])
    train = np.array([5, 4, 3, 3.5, 2, np.nan])
    held_out = np.array([5, 6, 7, 8, 9, 10.0])
    assert figures.memorising_spans(step, train, held_out) == [(0, 20), (30, 40)]
    assert figures.memorising_spans(step, train, train) == []


def test_a_line_that_leaves_the_diagonal_picture_keeps_its_slope_up_to_the_edge() -> None:
    rows = [row("one", "memory", curve_step=[0, 10], curve_train=[L0, 0.0], curve_held_out=[L0, 3 * L0])]
    trace = figures.diagonal(rows, {"one": "memory"})["data"][0]
    # h falls from 0 to −2 as s goes from 0 to 1: it crosses −1.2 at s = 0.6, at step 6
    assert trace["x"] == [0, 0.6, 1]
    assert trace["y"] == [0, figures.H_FLOOR, figures.H_FLOOR]
    assert trace["customdata"][-1] == [10, 1, -2]  # hover tells the truth
    assert trace["line"]["color"] == figures.rgb("memory")


def test_each_trial_with_readings_is_one_line_of_the_diagonal() -> None:
    rows = everything()
    findings = {r["arm"]: "diverged" if r["status"] != "done" else "memory" for r in rows}
    rows[0] |= {"curve_train": [None if i == 3 else v for i, v in enumerate(rows[0]["curve_train"])]}
    traces = figures.diagonal(rows, findings)["data"]
    assert len(traces) == len(rows)
    assert [t["x"].count(None) for t in traces if t["meta"][1] == "finds" and t["meta"][2] == 0] == [1]
    json.dumps(traces, allow_nan=False)


@pytest.mark.parametrize(("low", "kind"), [(1e-4, "log"), (1.0, None)])
def test_the_loss_axis_is_logarithmic_where_the_range_is_large(low: float, kind: str | None) -> None:
    one = row("one", "rule", curve_step=[0, 1], curve_train=[3.0, low], curve_held_out=[3.0, low])
    assert figures.losses([one], "rule")["layout"]["yaxis"].get("type") == kind


def test_the_first_seed_is_strong_and_the_others_thin() -> None:
    data = figures.losses([row("one", "rule", s) for s in range(3)], "rule")["data"]
    widths = [t["line"]["width"] for t in data]
    assert len(data) == 6
    assert min(widths[-2:]) > max(widths[:-2])


def test_labels_that_would_overlap_are_moved_apart() -> None:
    assert figures.spread([50, 0], 10) == [50, 0]
    assert figures.spread([5, 5, 40], 10) == [0, 10, 40]
    placed = sorted(figures.spread([1, 2, 3, 4], 10))
    assert np.diff(placed).min() == pytest.approx(10)
    assert np.mean(placed) == pytest.approx(2.5)


def test_every_colour_of_the_pictures_is_a_variable_in_light_and_in_dark() -> None:
    sheet = (Path(report.__file__).parent / "report.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\n *\}", sheet, re.S)[:2]
    for role in figures.COLOURS:
        assert f"--{role}: {figures.rgb(role)};" in light
        assert f"--{role}: rgb(" in dark


# --- in a browser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(study(tmp_path_factory.mktemp("report") / "study", everything()))


@pytest.fixture
def opened(browser: Browser, page_file: Path) -> Iterator[Opened]:
    opened = Opened(browser, page_file)
    yield opened
    opened.context.close()


def test_it_opens_from_disk_without_a_word_of_complaint_and_draws_when_scrolled_to(opened: Opened) -> None:
    assert opened.undrawn()  # lazily: not all at once
    opened.scroll_through()
    assert opened.undrawn() == []
    count = opened.page.evaluate("document.querySelectorAll('[data-picture]').length")
    assert count == 7
    lines = "document.querySelectorAll('[data-picture=\"lockstep\"] .scatterlayer .trace path.js-line').length"
    assert opened.page.evaluate(lines) >= 9  # all trials but the one without readings
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    opened.page.hover("[data-picture=lockstep]")
    assert opened.trouble == []
    assert {u.split(":")[0] for u in opened.requests} == {"file"}
    assert len(opened.requests) == 1


def test_the_section_on_breaks_is_drawn_and_tells_counts(browser: Browser, tmp_path: Path) -> None:
    opened = Opened(browser, build_report(study(tmp_path / "s", broken())))
    section = opened.page.get_by_role("region", name="Where the traces break")
    assert section.locator(".code").all_inner_texts() == ["steps", "right"]  # none for the arm that answers at once
    assert "most broke at the result of a step: 12 of 21." in section.locator(".lead").inner_text()
    opened.scroll_through()
    assert opened.undrawn() == []
    pictures = section.locator("[data-picture]")
    # pieces of bars by colour: three splits, two kinds in the second, one in the third
    roles = {role: figures.rgb(role) for role in ("rule", *(f"fault-{k}" for k in figures.FAULTS))}
    widths = f"""h => Object.fromEntries(Object.entries({json.dumps(roles)}).map(([role, rgb]) => [
        role, [...h.querySelectorAll('.barlayer path')].filter(p => p.style.fill === rgb)
            .map(p => p.getBoundingClientRect().width).filter(w => w > 1)]).filter(([, w]) => w.length))"""
    drawn = pictures.first.evaluate(widths)
    assert {role: len(w) for role, w in drawn.items()} == {
        "rule": 3, "fault-copying": 1, "fault-result": 1, "fault-answer": 1,
    }  # fmt: skip
    assert drawn["fault-result"][0] == pytest.approx(3 * drawn["fault-copying"][0], rel=0.05)
    assert {*pictures.nth(1).evaluate(widths)} == {"rule", "fault-start"}

    pictures.first.locator(".barlayer .trace", has_text="result 12").locator("path").nth(1).scroll_into_view_if_needed()
    box = pictures.first.locator(".barlayer .trace", has_text="result 12").locator("path").nth(1).bounding_box()
    assert box is not None
    opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = pictures.first.locator(".hoverlayer .hovertext")
    hover.wait_for()
    assert "first wrong at the result of a step: 12 of 16" in (hover.text_content() or "")
    said = section.locator(".example").first.inner_text()
    assert said == "22! step by step: first goes wrong at the result of a step: “9241…” where “9240…” was due"
    assert opened.trouble == []
    opened.context.close()


def test_lines_of_an_output_stay_lines_and_the_break_is_in_sight(browser: Browser, tmp_path: Path) -> None:
    long = "".join(f"{i}*{i}={i * i}\n" for i in range(40))
    fault = {"kind": "form", "token": 240, "expected": "x", "written": "wrong here"}
    bad = {"problem": "a\nb", "written": long + "wrong here", "answer": None, "expected": "1", "correct": False,
           "unreadable": [], "fault": fault}  # fmt: skip
    rows = [traced("one", outputs=json.dumps({"random": [bad]}))]
    opened = Opened(browser, build_report(study(tmp_path / "s", rows)))
    block = opened.page.locator(".typical .written")
    assert block.inner_text() == bad["written"]
    assert block.locator(".rest").inner_text() == "wrong here"
    opened.page.locator("details.samples summary").click()
    for place in (".typical", "details.samples"):
        seen = opened.page.locator(f"{place} .block").evaluate(
            "b => [b.scrollHeight > b.clientHeight + 100, b.getBoundingClientRect(), "
            "b.querySelector('.rest').getBoundingClientRect()]"
        )
        assert seen[0]
        assert seen[1]["top"] <= seen[2]["top"] < seen[2]["bottom"] <= seen[1]["bottom"]
    opened.context.close()


def test_breaks_are_recoloured_in_the_dark_and_fit_a_phone_and_paper(browser: Browser, tmp_path: Path) -> None:
    file = build_report(study(tmp_path / "s", [traced(f"arm-{i}-with-a-long-name") for i in range(25)]))
    opened = Opened(browser, file, viewport={"width": 390, "height": 844})
    opened.scroll_through()
    assert opened.undrawn() == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    colour = "getComputedStyle(document.querySelector('.picture.bars .barlayer path')).fill"
    light = opened.page.evaluate(colour)
    opened.page.emulate_media(color_scheme="dark")
    assert opened.page.evaluate(colour) != light
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate(colour) == light
    # writing stays on its piece of a bar, or is not there
    out = opened.page.evaluate(
        """[...document.querySelectorAll('.picture.bars .barlayer .point')].filter(p => {
            const [piece, text] = ['path', 'text'].map(t => p.querySelector(t)?.getBoundingClientRect());
            return text?.width && (text.left < piece.left - 1 || text.right > piece.right + 1);
        }).length"""
    )
    assert out == 0
    cut = opened.page.evaluate(
        """[...document.querySelectorAll('.picture.bars')].filter(h => {
            const box = h.parentElement.getBoundingClientRect();
            return h.clientHeight < 20 || [...h.querySelectorAll('.main-svg, .main-svg text')]
                .some(e => e.getBoundingClientRect().right > box.right + 1);
        }).length"""
    )
    assert cut == 0
    opened.context.close()


def test_memorising_updates_are_shaded(opened: Opened) -> None:
    opened.scroll_through()
    shaded = opened.page.evaluate(
        f"""[...document.querySelectorAll('.card')].filter(c => c.querySelector(
            '.shapelayer path[style*="fill: {figures.rgb("wash")}"]')).map(c => c.querySelector('.code').innerText)"""
    )
    assert [s for s in shaded if not s.startswith("x<")] == ["remembers"]


def test_hostile_text_is_inert_and_visible(opened: Opened) -> None:
    assert opened.page.evaluate("document.images.length") == 0
    assert opened.page.evaluate("document.scripts.length") == 3
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    shown = opened.page.inner_text("main")
    assert shown.count("</script><img src=x onerror=alert(1)>") > 15
    assert "a call that the tool could not read: <multiply> 2 2 2" in shown
    assert "gave no answer" in shown
    assert opened.trouble == []


def names(page: Page) -> list[str]:
    return [n for n in page.locator("#arms tr.arm .code").all_inner_texts() if not n.startswith("x<")]


def test_a_heading_sorts_one_way_then_the_other_then_gives_back_the_order(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")  # the table needs no mouse
    before = names(page)
    random = page.get_by_role("columnheader", name="random")
    random.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert random.get_attribute("aria-sort") == "descending"
    assert names(page) == ["finds", "halfway", "remembers", "sleeps", "bursts"]
    assert not page.locator("tr.group").count()
    page.keyboard.press("Enter")
    assert random.get_attribute("aria-sort") == "ascending"
    assert names(page) == ["sleeps", "remembers", "halfway", "finds", "bursts"]  # what is missing stays last
    page.keyboard.press("Enter")
    assert random.get_attribute("aria-sort") == "none"
    assert names(page) == before
    assert page.locator("tr.group").count() == 3

    arm = page.get_by_role("columnheader", name="arm", exact=True)
    arm.get_by_role("button").click()
    assert arm.get_attribute("aria-sort") == "ascending"
    assert names(page) == sorted(before)
    finding = page.get_by_role("columnheader", name="finding")
    finding.get_by_role("button").click()
    assert arm.get_attribute("aria-sort") == "none"
    assert names(page) == ["finds", "halfway", "remembers", "sleeps", "bursts"]


def test_a_finding_can_be_hidden_in_the_diagonal(opened: Opened) -> None:
    lines = opened.page.locator("[data-picture=lockstep] .scatterlayer .trace path.js-line")
    before = lines.count()
    opened.page.get_by_role("button", name="found the rule 1").click()
    assert lines.count() == before - 3
    opened.page.get_by_role("button", name="found the rule 1").click()
    assert lines.count() == before


def test_on_a_phone_only_the_table_scrolls_sideways(browser: Browser, page_file: Path) -> None:
    opened = Opened(browser, page_file, viewport={"width": 390, "height": 844}, has_touch=True)
    opened.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    opened.scroll_through()
    assert opened.page.evaluate("document.documentElement.scrollWidth") == 390
    wide = opened.page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll') && !e.closest('svg')"
        " && e.getBoundingClientRect().right > 391).map(e => e.tagName + '.' + e.className)"
    )
    assert wide == []
    assert opened.page.evaluate("(e => e.scrollWidth > e.clientWidth)(document.querySelector('.scroll'))")
    assert opened.undrawn() == []
    opened.context.close()


def luminance(colour: str) -> float:
    r, g, b = (int(c) for c in re.findall(r"\d+", colour)[:3])
    return (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255


BACK = "getComputedStyle(document.body).backgroundColor"
TEXT = "getComputedStyle(document.querySelector('[data-picture=lockstep] .xtick text')).fill"


def test_dark_mode_recolours_page_and_pictures_without_drawing_again(opened: Opened) -> None:
    page = opened.page
    page.wait_for_selector("[data-picture=lockstep] .xtick text")
    assert luminance(page.evaluate(BACK)) > 0.9 > 0.6 > luminance(page.evaluate(TEXT))
    page.emulate_media(color_scheme="dark")
    assert luminance(page.evaluate(BACK)) < 0.15 < 0.5 < luminance(page.evaluate(TEXT))
    # a dark screen is still printed on white
    page.emulate_media(color_scheme="dark", media="print")
    assert luminance(page.evaluate(BACK)) > 0.9 > 0.6 > luminance(page.evaluate(TEXT))


def test_printing_draws_all_pictures(opened: Opened) -> None:
    page = opened.page
    assert opened.undrawn()
    page.evaluate("addEventListener('afterprint', () => { window.printed = true; })")
    assert page.pdf(format="A4", print_background=True).startswith(b"%PDF")
    assert page.evaluate("window.printed")
    assert opened.undrawn() == []
    assert opened.trouble == []


def test_print_media_alone_draws_all_pictures(opened: Opened) -> None:
    assert opened.undrawn()
    opened.page.emulate_media(media="print")
    opened.page.wait_for_timeout(200)
    assert opened.undrawn() == []
    low = "[...document.querySelectorAll('[data-picture]')].filter(h => h.clientHeight < 50).length"
    assert opened.page.evaluate(low) == 0


def test_paper_cuts_no_picture_that_was_drawn_for_another_width(browser: Browser, page_file: Path) -> None:
    opened = Opened(browser, page_file, viewport={"width": 600, "height": 844})
    opened.scroll_through()  # one card a row; on paper there are two
    opened.page.emulate_media(media="print")
    cut = opened.page.evaluate(
        """[...document.querySelectorAll('[data-picture]')].filter(h => {
            const card = h.parentElement.getBoundingClientRect();
            const drawn = [...h.querySelectorAll('.main-svg, .main-svg text')].map(e => e.getBoundingClientRect());
            return h.clientHeight < 50 || drawn.some(d => d.right > card.right + 1 || d.bottom > card.bottom + 1);
        }).map(h => h.dataset.picture)"""
    )
    assert cut == []
    opened.context.close()


@pytest.mark.parametrize("kind", ["rule", "diverged"])
def test_one_arm_is_enough(browser: Browser, tmp_path: Path, kind: str) -> None:
    empty = {"curve_step": [], "curve_train": [], "curve_held_out": []} if kind == "diverged" else {}
    opened = Opened(browser, build_report(study(tmp_path / "s", [row("only", kind, **empty)], seconds=None)))
    opened.scroll_through()
    assert opened.undrawn() == []
    assert opened.trouble == []
    shown = opened.page.inner_text("main")
    assert "in all" not in shown and "took" not in opened.page.inner_text("body")
    assert (report.WORDS[kind]) in shown
    opened.context.close()


def test_the_hashes_of_the_policy_are_those_of_the_scripts(browser: Browser, page_file: Path) -> None:
    # If they were not, nothing would be drawn; here a script is changed to see that the policy is in force.
    text = page_file.read_text("utf-8")
    ours = (Path(report.__file__).parent / "report.js").read_text("utf-8")
    changed = page_file.with_name("changed.html")
    changed.write_text(text.replace(ours, ours + "window.changed = 1;"), "utf-8")
    opened = Opened(browser, changed)
    assert opened.page.evaluate("window.changed === undefined")
    assert any("Content Security Policy" in t for t in opened.trouble)
    opened.context.close()
