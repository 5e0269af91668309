"""The page of the lessons: made of measures that are made up, what it shows of them, and a real browser."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from chromium import HOSTILE, Opened
from playwright.sync_api import Browser

from crevasse import store
from crevasse.errors import UserError
from crevasse.lessons.apply import METHODS
from crevasse.report import build_report
from crevasse.report.figures import rgb
from crevasse.report.lessons import percent
from crevasse.report.page import get_plotlyjs, score_text
from crevasse.studies import EVIDENCE, STUDIES, VERDICT, decide
from crevasse.studies.base import write_evidence
from crevasse.studies.measures import MEASURES, Measure, fingerprint, write_measures
from made_up_lessons import measures, story

STUDY = STUDIES.parse("lessons")
STORIES = [
    story(),
    story(cause=HOSTILE, incidents=[HOSTILE] * 3, memory=[[HOSTILE, 3, 1]]),
    story(kind="chance", cause="no lesson", events=0, met=[False] * 3),
]


def folder(path: Path, found: list[Measure]) -> Path:
    """Evidence, measures and verdict as the study leaves them."""
    path.mkdir(parents=True, exist_ok=True)
    write_evidence(path / EVIDENCE, [])
    write_measures(path / MEASURES, found, fingerprint([]))
    store.write_json(path / VERDICT, decide(STUDY, "smoke", [], found) | {"seconds": 12.0})
    return path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(folder(tmp_path_factory.mktemp("lessons"), measures(told=STORIES)))


def without_plotly(file: Path) -> str:
    return file.read_text("utf-8").replace(get_plotlyjs(), "")


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def pictures(file: Path) -> dict[str, Any]:
    (text,) = re.findall(r'<script type="application/json" id="pictures">(.*?)</script>', without_plotly(file), re.S)
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_answer_the_goals_and_every_method_stand_there(page_file: Path) -> None:
    verdict = json.loads((page_file.parent / VERDICT).read_text("utf-8"))
    text = without_plotly(page_file)
    assert words(verdict["answer"]).replace(" ", "") in words(text).replace(" ", "")
    for goal in verdict["lessons"]["goals"]:
        assert f"{goal['goal']} {goal['figure']} {goal['value']['mean']:.3f}" in words(text)
    tables = re.findall(r'<table class="sortable">(.*?)</table>', text, re.S)
    for n, table in zip((3, 1, 2, 5, 10), tables, strict=True):
        lines = [words(line) for line in re.findall(r'<tr class="arm">(.*?)</tr>', table, re.S)]
        assert len(lines) == len(METHODS)
        for method in verdict["lessons"]["methods"]:
            (at,) = [a for a in method["after"] if a["n"] == n]
            (line,) = [one for one in lines if method["what"] in one]
            assert line.split(method["what"])[1].split()[0] == score_text(at["gap"]["mean"])
            assert f"{at['regret']['mean']:.3f}" in line and percent(at["over"]["mean"]) in line


def test_the_lattice_has_every_scope_once_coloured_by_how_far_its_lesson_reached(page_file: Path) -> None:
    """Made up: without replay all events are avoided whatever is taught, with replay the scope alone."""
    drawn = pictures(page_file)
    for way, (right, far) in {"alone": (0, 180), "replay": (180, 0)}.items():
        _, *nodes = drawn[f"lattice-{way}"]["data"]
        counts = {trace["marker"]["color"]: len(trace["x"]) for trace in nodes}
        assert counts == {rgb("rule"): right, rgb("memory"): far, rgb("part"): 0}
        spots = {spot for trace in nodes for spot in zip(trace["x"], trace["y"], strict=True)}
        assert len(spots) == 180
        numbers = [a["text"] for a in drawn[f"lattice-{way}"]["layout"]["annotations"]]
        assert sorted(numbers) == [f"<b>{i}</b>" for i in range(1, 10)]
    # Of two neighbours, the one to the left or above holds the other, so more events; and the node is no smaller.
    nodes = drawn["lattice-replay"]["data"][1]
    size = dict(zip(zip(nodes["x"], nodes["y"], strict=True), nodes["marker"]["size"], strict=True))
    for (x, y), own in size.items():
        assert all(size[other] <= own for other in ((x + 1, y), (x, y + 1)) if other in size)


def test_a_story_says_what_was_right_and_who_did_it(page_file: Path) -> None:
    person, _, chance = re.findall(r'<article class="card".*?</article>', without_plotly(page_file), re.S)
    text = words(person)
    assert "something bad happens: park, 1 pm ." in text and "Francois had been met 1 time, 1 of them bad." in text
    assert "Francois, always (1,000 events)" in text and "1,000 events, 900 of them newly" in text
    assert "avoid “Francois, always” (672 events), and nothing else. The first incident was of this cause." in text
    assert "After 1 incident at most 2% of what is met is decided wrongly by: common-sense gradient, SGD on" in text
    assert "There is no cause" in words(chance) and "no lesson: to go on as before." in words(chance)


def test_foreign_text_never_becomes_markup(page_file: Path) -> None:
    text = without_plotly(page_file)
    assert "<script>alert" not in text and "<img" not in text and text.count("</script>") == 3
    assert text.count("&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;") >= 3


def test_what_the_verdict_says_is_not_shown_and_measures_of_something_else_are_refused(tmp_path: Path) -> None:
    found = measures()
    where = folder(tmp_path, found)
    verdict = store.read_json(where / VERDICT)
    store.write_json(where / VERDICT, verdict | {"answer": "All is well.", "lessons": {"lives": 9}})
    assert "All is well." not in without_plotly(build_report(where))
    write_measures(where / MEASURES, [m | {"version": 7} for m in found], fingerprint([]))
    with pytest.raises(UserError, match="another version"):
        build_report(where)
    (where / MEASURES).unlink()
    with pytest.raises(UserError, match="nothing is there"):
        build_report(where)
    store.write_json(where / VERDICT, verdict | {"study": "claims"})
    with pytest.raises(UserError, match="teaches none"):
        build_report(where)


def test_shares_are_written_short() -> None:
    values = (None, 0.0, 1e-5, 0.0002, 0.013, 0.05, 0.0995, 0.72, 1.0, -0.05)
    assert [percent(v) for v in values] == ["–", "0%", "<0.01%", "0.02%", "1.3%", "5%", "10%", "72%", "100%", "−5%"]


#: Names of axes and numbers of a picture that overlap, or that stick out of it.
CROWDED = """
[...document.querySelectorAll('[data-picture]')].flatMap(holder => {
  const frame = holder.getBoundingClientRect();
  const texts = [...holder.querySelectorAll('.xtick text, .ytick text, .annotation-text, .xtitle, .ytitle')]
    .filter(t => t.textContent.trim()).map(t => [t.textContent, t.getBoundingClientRect()]);
  const out = texts.filter(([, b]) => b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1
    || b.bottom > frame.bottom + 1).map(([t]) => `${holder.dataset.picture}: ${t} sticks out`);
  return [...out, ...texts.flatMap(([t, a], i) => texts.slice(i + 1).filter(([, b]) => Math.min(a.right, b.right)
    - Math.max(a.left, b.left) > 2 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2)
    .map(([u]) => `${holder.dataset.picture}: ${t} over ${u}`))];
})
"""


def test_every_picture_is_drawn_on_a_desk_and_on_a_phone(browser: Browser, page_file: Path) -> None:
    opened = Opened(browser, page_file, reduced_motion="reduce")
    page = opened.page
    opened.draw_all()
    assert opened.undrawn() == [] and page.locator("[data-picture]").count() == len(pictures(page_file)) == 6
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_timeout(400)  # plotly waits for a window that comes to rest
        assert page.evaluate(CROWDED) == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert opened.trouble == [] and {u.split(":")[0] for u in opened.requests} == {"file"}
    opened.context.close()
