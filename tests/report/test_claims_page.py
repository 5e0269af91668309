"""The page of the claims: real claims decided on made-up trials, what it shows of them, and a real browser."""

import json
import random
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from chromium import HOSTILE, Opened
from playwright.sync_api import Browser

from crevasse import store
from crevasse.config import TrialConfig
from crevasse.errors import UserError
from crevasse.report import build_report, claim_figures
from crevasse.report.claims import figure_text
from crevasse.report.figures import rgb
from crevasse.report.page import get_plotlyjs
from crevasse.spec import describe
from crevasse.studies import EVIDENCE, VERDICT, decide, read_evidence
from crevasse.studies.base import SCHEMA, Arm, write_evidence
from crevasse.studies.claims.base import Picture
from crevasse.studies.claims.study import ClaimsStudy
from crevasse.studies.measures import MEASURES, Measure, fingerprint, read_measures, write_measures

Row = dict[str, Any]
#: Dots, matrices and lines with both kinds of logarithmic axis; C9 and C10 are measured.
STUDY = ClaimsStudy(only="C1+C2+C8+C9+C10")


def trial(arm: Arm, config: TrialConfig) -> Row:
    """A trial that did not run: who writes steps or has structure finds the rule, most others remember."""
    draw = random.Random(f"{arm.name} {config.seed}")
    finds = any(w in arm.name for w in ("trace", "tool", "copy", "add-59", "parity-recurrent", "product-looped"))
    far = draw.uniform(0.93, 1.0)
    held_out = draw.uniform(0.94, 1.0) if finds else draw.uniform(0.04, 0.3)
    lengths = arm.name.startswith("C2/") and "quadratic" not in arm.name
    curve = [4 * (1 - far * i / 4) for i in range(5)]
    kept = held_out if finds else 0.2 * draw.random()
    row: Row = dict.fromkeys(SCHEMA.names) | {
        "phase": "test", "arm": arm.name, "title": arm.title, "group": arm.group, "trial": config.id, "status": "done",
        "task": describe(config.task), "format": describe(config.format), "model": describe(config.model),
        "rule": describe(config.rule), "labels": config.labels, "seed": config.seed,
        "config": json.dumps(config.to_json()), "environment": json.dumps({"python": "3.11", HOSTILE: HOSTILE}),
        "notes": json.dumps([HOSTILE]), "outputs": "{}", "faults": "{}", "train": far, "random": held_out,
        "interpolation": 0.8 * held_out if lengths else None, "extrapolation": 0.1 if lengths else None,
        "chance": 1 / 13, "lockstep": 0.5, "s_max": far, "memorising": 0.1, "uniform_loss": 4.0, "passes": 1e5,
        "seconds": 2.0, "curve_step": [0, 1, 2, 3, 4], "curve_train": curve,
        "curve_held_out": [4 - kept * (4 - v) for v in curve],
    }  # fmt: skip
    row |= dict.fromkeys(("steps", "moved_steps", "samples", "parameters", "examples", "unreadable_calls"), 100)
    for split in ("random", "interpolation", "extrapolation"):
        row |= {f"{k}_{split}": v for k, v in (("ceiling", 1.0), ("majority", 0.1), ("lookup", 0.1), ("nearest", 0.1))}
    return row


def made_up(study: ClaimsStudy) -> tuple[list[Row], list[Measure]]:
    rows = [trial(a, c) for a in study.arms("minutes") for c in a.trials()]
    for r in rows[:1]:
        r["title"] = r["task"] = HOSTILE
    return rows, [m for c in study.claims for m in c.measure("minutes", Path("none"), [])]


@pytest.fixture(scope="module")
def found() -> tuple[list[Row], list[Measure]]:
    return made_up(STUDY)


def beside(rows: list[Row]) -> str:
    return fingerprint([r["trial"] for r in rows])


def folder(path: Path, found: tuple[list[Row], list[Measure]], study: ClaimsStudy = STUDY) -> Path:
    """Evidence, measures and verdict as the study leaves them."""
    path.mkdir(parents=True, exist_ok=True)
    rows, measures = found
    write_evidence(path / EVIDENCE, rows)
    write_measures(path / MEASURES, measures, beside(rows))
    verdict = decide(study, "minutes", read_evidence(path / EVIDENCE), read_measures(path / MEASURES, beside(rows)))
    store.write_json(path / VERDICT, verdict | {"seconds": 12.0})
    return path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory, found: Any) -> Path:
    return build_report(folder(tmp_path_factory.mktemp("page"), found))


@pytest.fixture(scope="module")
def verdict(page_file: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((page_file.parent / VERDICT).read_text("utf-8"))
    return read


def without_plotly(file: Path) -> str:
    return file.read_text("utf-8").replace(get_plotlyjs(), "")


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def test_each_claim_has_a_line_and_a_section_that_say_what_was_decided(
    page_file: Path, verdict: dict[str, Any]
) -> None:
    text = without_plotly(page_file)
    lines = re.findall(r'<li><a href="#(\w+)">(.*?)</a></li>', text, re.S)
    sections = dict(re.findall(r'<section class="claim" id="(\w+)".*?>(.*?)</section>', text, re.S))
    assert [name for name, _ in lines] == [*sections] == [c["claim"].lower() for c in verdict["claims"]]
    for (name, line), claim in zip(lines, verdict["claims"], strict=True):
        said = [claim["claim"], claim["title"], claim["decision"], claim["key"]]
        assert words(line) == " ".join(" ".join(said).split())
        shown = words(sections[name])
        for what in ("quote", "hypothesis", "experiment", "rule", "change"):
            assert " ".join(claim[what].split()) in shown
        assert f"{claim['decision']} {' '.join(claim['key'].split())}." in shown
        assert all(f"{e['name']} {figure_text(e['value'])}" in shown for e in claim["effects"])
        assert all(" ".join(p["caption"].split()) in shown for p in claim["pictures"])


def test_scores_are_the_means_over_seeds_of_the_evidence(page_file: Path, found: Any) -> None:
    text = without_plotly(page_file)
    section = text[text.index('id="c2"') : text.index('id="c8"')]
    rows = [r for r in found[0] if r["arm"] == "C2/s5-looped"]
    (line,) = [tr for tr in re.findall(r"<tr.*?</tr>", section, re.S) if f"<b>{rows[0]['title']}</b>" in tr]
    values = [float(v) for v in re.findall(r'<td class="score[^>]*data-value="([^"]+)"', line)]
    splits = ("train", "random", "interpolation", "extrapolation")
    assert values == pytest.approx([sum(r[s] for r in rows) / len(rows) for s in splits], abs=1e-5)


def test_foreign_text_never_becomes_markup(page_file: Path) -> None:
    text = without_plotly(page_file)
    assert "<script>alert" not in text and "<img" not in text
    assert text.count("</script>") == 3  # data, plotly, ours
    assert text.count("&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;") >= 4  # title, task, note, environment


def test_claims_are_decided_again_and_those_of_the_file_are_not_shown(
    tmp_path: Path, found: Any, page_file: Path
) -> None:
    where = folder(tmp_path, found)
    forged = json.loads((where / VERDICT).read_text("utf-8"))
    store.write_json(where / VERDICT, forged | {"claims": [HOSTILE], "answer": "All of it is true."})
    assert without_plotly(build_report(where)) == without_plotly(page_file)


# --- evidence of something else ------------------------------------------------------------------------------------


def test_evidence_and_measures_of_something_else_are_refused_in_one_line(tmp_path: Path, found: Any) -> None:
    rows, measures = found
    newer = [m | {"version": 99} if m["claim"] == "C10" else m for m in measures]
    other = [rows[0] | {"config": json.dumps(json.loads(rows[0]["config"]) | {"steps": 9999})}, *rows[1:]]
    spoiled = {
        r"nothing is there of what was measured for C9, C10": (rows, None),
        r"nothing is there of what was measured for C9;": (rows, [m for m in measures if m["claim"] == "C10"]),
        "C10 was measured by another version": (rows, newer),
        "not that of these claims": (other, measures),
        "the config of": ([rows[0] | {"config": "{"}, *rows[1:]], measures),
        "do not belong together": (rows[1:], measures),
    }
    folder(tmp_path, found)
    for reason, (some, measured) in spoiled.items():
        write_evidence(tmp_path / EVIDENCE, some)
        (tmp_path / MEASURES).unlink(missing_ok=True)
        if measured is not None:
            write_measures(tmp_path / MEASURES, measured, beside(some))
        with pytest.raises(UserError, match=reason) as error:
            build_report(tmp_path)
        assert "\n" not in str(error.value)
    write_evidence(tmp_path / EVIDENCE, rows)
    write_measures(tmp_path / MEASURES, measures, beside(rows[1:]))
    with pytest.raises(UserError, match="was measured on other trials"):
        build_report(tmp_path)
    assert not (tmp_path / "index.html").exists()


def test_claims_of_a_study_without_any_are_refused(tmp_path: Path, found: Any) -> None:
    where = folder(tmp_path, found)
    read = json.loads((where / VERDICT).read_text("utf-8"))
    store.write_json(where / VERDICT, read | {"study": "factorial"})
    with pytest.raises(UserError, match="factorial"):
        build_report(where)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_lines_have_bands_marks_have_bars_and_names_stand_apart() -> None:
    picture: Picture = {
        "kind": "lines", "caption": "", "x": "n", "y": "loss", "log_y": True,
        "series": [
            {"name": "a <b>line</b>", "x": [1, 2, 3], "y": [1, 10, 0], "low": [0.5, 5, 0], "high": [2, 20, 1]},
            {"name": "a line that ends at the same place", "x": [1, 2], "y": [3, 10]},
            {"name": "points", "x": [1], "y": [4.0], "low": [3.0], "high": [6.0], "marks": True},
        ],
    }  # fmt: skip
    figure = claim_figures.draw(picture)
    band, first, _, points = figure["data"]
    assert band["y"] == [0.5, 5, 20, 2]  # there and back; zero is not on a logarithmic axis
    assert first["y"] == [1, 10, None] and points["mode"] == "markers"
    assert (points["error_y"]["array"], points["error_y"]["arrayminus"]) == ([2.0], [1.0])
    ((name, role),) = claim_figures.key(picture)
    assert name == "points" and rgb(role) == points["marker"]["color"]
    ends = figure["layout"]["annotations"]
    assert "&lt;b&gt;" in ends[0]["text"] and "<b>" not in ends[0]["text"]
    low, high = figure["layout"]["yaxis"]["range"]
    inner = figure["layout"]["height"] - sum(figure["layout"]["margin"][k] for k in "tb")
    taken = max(a["text"].count("<br>") + 1 for a in ends) * 11
    assert abs(ends[0]["y"] - ends[1]["y"]) / (high - low) * inner >= taken
    assert all(low <= a["y"] <= high for a in ends)


def test_every_cell_of_a_matrix_holds_its_number_and_empty_ones_are_grey() -> None:
    picture: Picture = {"kind": "matrix", "caption": "", "rows": ["r1", "r2"], "columns": ["c1", "c2"],
                        "values": [[0.0, 0.5], [1.0, None]]}  # fmt: skip
    figure = claim_figures.draw(picture)
    (trace,) = figure["data"]
    assert trace["text"] == [".00", ".50", "1.00", ""]
    assert list(zip(trace["x"], trace["y"], strict=True)) == [(0, 0), (1, 0), (0, 1), (1, 1)]
    shades = [s["opacity"] for s in figure["layout"]["shapes"]]
    assert shades[0] < shades[1] < shades[2]
    colours = [s["fillcolor"] for s in figure["layout"]["shapes"]]
    assert len({*colours[:3]}) == 1 and colours[3] not in colours[:3]


def test_figures_are_written_as_people_read_them() -> None:
    values = (0.974, 0, -0.4, 16.0, 1240, 1726.7, 3.14e-05, None, 1.0)
    assert [figure_text(v) for v in values] == [".97", ".00", "−.40", "16", "1,240", "1,727", "3.1e-05", "–", "1.00"]


#: Texts of a picture whose boxes overlap, or that stick out of it.
CROWDED = """
[...document.querySelectorAll('[data-picture]')].flatMap(holder => {
  const frame = holder.getBoundingClientRect();
  const all = '.xtick text, .ytick text, .annotation-text, .xtitle, .ytitle, .textpoint text';
  const texts = [...holder.querySelectorAll(all)]
    .filter(t => t.textContent.trim()).map(t => [t.textContent, t.getBoundingClientRect()]);
  const out = texts.filter(([, b]) => b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1
    || b.bottom > frame.bottom + 1).map(([t]) => `${holder.dataset.picture}: ${t} sticks out`);
  const over = texts.flatMap(([t, a], i) => texts.slice(i + 1).filter(([, b]) => Math.min(a.right, b.right)
    - Math.max(a.left, b.left) > 2 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2)
    .map(([u]) => `${holder.dataset.picture}: ${t} over ${u}`));
  return [...out, ...over];
})
"""


def test_every_picture_is_drawn_and_no_text_lies_on_another(browser: Browser, page_file: Path) -> None:
    opened = Opened(browser, page_file, reduced_motion="reduce")
    page = opened.page
    opened.draw_all()
    assert opened.undrawn() == []
    decided = json.loads((page_file.parent / VERDICT).read_text("utf-8"))["claims"]
    drawn = sum(len(c["pictures"]) for c in decided) + 1  # and the table of C2 once more
    assert page.locator("[data-picture]").count() == drawn >= 5
    for width in (1280, 390):
        assert opened.width_at(width) == width
        assert page.evaluate(CROWDED) == []
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    lines = opened.followed()
    assert len(lines) == len(STUDY.claims)
    assert all(-1 <= top < 844 and name in heading for name, heading, top in lines)
    page.emulate_media(media="print")
    assert page.evaluate("document.images.length") == 0
    assert opened.trouble == []
    assert {u.split(":")[0] for u in opened.requests} == {"file"}
    opened.context.close()
