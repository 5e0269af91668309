"""The page of a lesson in a real browser, its numbers against closed forms, and what `crevasse teach` writes."""

import dataclasses
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from chromium import Opened
from playwright.sync_api import Browser

from crevasse import api
from crevasse.errors import UserError
from crevasse.lessons.induce import Found, Induction, parse_pairs
from crevasse.programs.language import Recursion, bits
from crevasse.programs.parser import parse
from crevasse.report import teach as page

HUGE = 10**399


def believed(examples: list[str], shares: dict[str, float], complete: bool = True) -> Induction:
    """Programs that are believed as is said here."""
    some = [(parse(text), share) for text, share in shares.items()]
    return Induction(parse_pairs(examples), tuple(Found(p, bits(p), share) for p, share in some), complete)


#: Undefined at the last of the next inputs, negative, and cubed each time.
WILD = believed(
    ["1=12", "2=6"],
    {
        "f(n) = 12 / n": 0.6,
        "f(1) = 12; f(n) = f(n-1) - 6": 0.3,
        "f(1) = 12; f(n) = f(n-1) · f(n-1) · f(n-1) - 1722": 0.1,
    },
    complete=False,
)
DOUBLING = parse("f(0) = 1; f(n) = 2 · f(n-1)")
assert isinstance(DOUBLING, Recursion)
BEYOND = Induction({(995,): HUGE}, (Found(Recursion(995, (HUGE,), DOUBLING.body), 2000, 1.0),), True)
NOTHING = Induction(parse_pairs(["1=5", "2=-7"]), (), True)
GCD = believed(["12,18=6", "9,6=3"], {"f(a, b) = a-6": 0.7, "f(a, b) = if b == 0 then a else f(b, a mod b)": 0.3})


def command(monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: str) -> tuple[Any, str, str]:
    from crevasse.cli import main

    monkeypatch.setattr(sys, "argv", ["crevasse", "teach", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code, *capsys.readouterr()


def test_text_json_file_and_page_tell_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, browser: Browser
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command(monkeypatch, capsys, "1=1", "3=2", "5=5", "--json")
    folder, lesson = tmp_path / "crevasse-out" / "teach-1=1-3=2-5=5", json.loads(out)
    assert (code, err) == (0, "") and json.loads((folder / "teach.json").read_text()) == lesson
    assert sorted(p.name for p in folder.iterdir()) == ["index.html", "teach.json"]
    code, out, err = command(monkeypatch, capsys, "1=1", "3=2", "5=5", "--out", "elsewhere")
    assert (code, err) == (0, "") and out.splitlines()[-1] == f"page: {Path('elsewhere') / 'index.html'}"
    assert (tmp_path / "elsewhere" / "index.html").read_bytes() == (folder / "index.html").read_bytes()

    opened = Opened(browser, folder / "index.html")
    opened.scroll_through()
    words = opened.page.locator("h1").inner_text()
    assert "f(n) = f(n−1) + f(n−2) from f(0) = 0 and f(1) = 1; next come 8, 13 and 21" in words
    assert f"{lesson['sure']:.0%} sure" in words
    rows = opened.page.locator(".said-next tbody tr").all_inner_texts()
    for row, said in zip(rows, lesson["next"], strict=True):
        first, *values = re.split(r"\s+", row.strip())
        assert first == f"f({said['input'][0]})"
        shown = dict(zip(values[::2], values[1::2], strict=True))
        assert shown == {str(v["value"]).replace("-", "−"): f"{v['share']:.0%}" for v in said["values"]}
    listed = opened.page.locator(".programs li").all_inner_texts()
    for p, row in zip(lesson["programs"], listed, strict=True):
        assert p["program"] in row and f"{p['bits']} bits" in row
    answers = opened.page.locator(".answers tbody tr").all_inner_texts()
    assert len(answers) == len(lesson["telling"]["values"]) > 1
    assert f"f({lesson['telling']['input'][0]})" in opened.page.locator("#ask-title + .lead").inner_text()
    assert "crevasse teach 1=1 3=2 5=5" in opened.page.locator("pre.command").inner_text()
    assert opened.undrawn() == [] and opened.trouble == []
    assert {u.split(":")[0] for u in opened.requests} == {"file"}
    opened.context.close()


@pytest.mark.parametrize(("found", "scheme"), [(WILD, "dark"), (NOTHING, "light")], ids=["wild", "nothing"])
def test_it_is_drawn_and_fits_the_window(tmp_path: Path, browser: Browser, found: Induction, scheme: str) -> None:
    file = tmp_path / "index.html"
    file.write_text(page.render(found, "crevasse teach"), "utf-8")
    opened = Opened(browser, file, color_scheme=scheme, reduced_motion="reduce")
    opened.draw_all()
    assert opened.undrawn() == [] and opened.trouble == []
    assert opened.page.locator("[data-picture]").count() == bool(found.programs)
    for width in (1280, 390):
        opened.page.set_viewport_size({"width": width, "height": 844})
        opened.page.wait_for_timeout(400)  # plotly waits for a window that comes to rest
        assert opened.page.evaluate("document.documentElement.scrollWidth") == width
        boxes = "[...document.querySelectorAll('.annotation-text')].map(e => e.getBoundingClientRect().toJSON())"
        assert all(b["left"] >= 0 and b["right"] <= width for b in opened.page.evaluate(boxes))
    # Brackets are arguments here: none of the headline is set as an aside.
    looks = "[...document.querySelectorAll('h1, h1 .aside')].map(getComputedStyle).map(s => [s.font, s.color])"
    assert len({*map(tuple, opened.page.evaluate(looks))}) == 1
    opened.context.close()


@pytest.mark.parametrize("complete", [True, False])
def test_where_nothing_was_found_the_page_says_so_and_guesses_nothing(complete: bool) -> None:
    text = page.render(dataclasses.replace(NOTHING, complete=complete), "crevasse teach")
    assert f"<h1>{page.NOTHING[complete]}</h1>" in text and "What do 1 = 5 and 2 = −7 teach?" in text
    body = text.partition('<script type="application/json"')[0]
    assert not re.search(r'data-picture=|class="(programs|answers|said-next)', body)
    assert ("is not complete: the time was up" in text) == (not complete)


def test_long_numbers_are_cut_where_people_read_and_whole_in_the_file(tmp_path: Path) -> None:
    text = page.render(BEYOND, "crevasse teach").partition('<script type="application/json"')[0]
    shown = re.sub(r"<style>.*?</style>|<meta[^>]*>", "", text, flags=re.S)
    assert not re.search(r"\d{25}", shown) and "(400 digits)" in shown
    assert page.value_text(10**24 - 1) == "9" * 24 and page.value_text(-(10**24)) == "-100000000000… (25 digits)"
    lesson = api.teach([f"7={HUGE}"], 0.05, out=tmp_path)
    assert json.loads((tmp_path / "teach.json").read_text()) == lesson
    assert lesson["examples"] == [{"input": [7], "value": HUGE}] and (lesson["programs"], lesson["sure"]) == ([], 0)


def test_lines_are_as_broad_as_they_are_believed_and_what_is_undefined_is_crossed() -> None:
    picture = page._picture(WILD)
    lines = {t["meta"][0]: t for t in picture["data"] if t["mode"] == "lines+markers"}
    order = [lines[page.text(f.program)] for f in WILD.programs]
    for key in (lambda t: t["line"]["width"], lambda t: t["opacity"]):
        assert key(order[0]) > key(order[1]) > key(order[2])
    assert [t["x"] for t in order] == [[1, 2, 3, 4, 5]] * 3
    assert order[0]["y"][-1] is None and None not in order[1]["y"] + order[2]["y"]
    crosses = [t for t in picture["data"] if t.get("mode") == "markers" and t["marker"].get("symbol") == "x"]
    assert [[v is not None for v in t["y"]] for t in crosses] == [[False] * 4 + [True]]
    drawn = [v for t in order for v in t["y"] if v is not None]
    low, high = picture["layout"]["yaxis"]["range"]
    assert low < crosses[0]["y"][-1] < min(drawn) and max(drawn) < high
    # f(5) of the last: 12, 6, -1506, ... by hand.
    value = 12
    for _ in range(4):
        value = value**3 - 1722
    assert order[2]["y"][-1] == pytest.approx(-math.log10(1 - value))


def test_with_two_inputs_examples_and_what_comes_next_stand_side_by_side() -> None:
    picture = page._picture(GCD)
    *lines, examples = picture["data"]
    assert (examples["x"], examples["y"]) == ([0, 1], [6, 3])
    assert [t["x"] for t in lines] == [[2, 3, 4]] * 2
    assert lines[0]["y"] == [math.gcd(12, b) for b in (19, 20, 21)] and lines[1]["y"] == [6] * 3
    assert picture["layout"]["xaxis"]["ticktext"] == ["12,18", "9,6", "12,19", "12,20", "12,21"]
    beyond = page._picture(BEYOND)["data"]
    assert beyond[0]["y"] == pytest.approx([399 + k * math.log10(2) for k in range(4)])


@pytest.mark.parametrize(
    ("values", "log", "ticks"),
    [
        ([1, 9, 25], False, [5, 10, 15, 20, 25]),
        ([-3, 4], False, [-2, 0, 2, 4]),
        ([7, 7], False, [7]),
        ([1_000_000, 1_000_003], False, [1_000_000, 1_000_001, 1_000_002, 1_000_003]),
        ([1, 40_320], True, [0, 1, 10, 100, 1000, 10_000, 100_000]),
        ([-200, 1], True, [-100, -10, -1, 0, 1, 10]),
        ([HUGE, 2 * HUGE], True, [HUGE, 10 * HUGE]),
    ],
)
def test_the_axis_keeps_order_whatever_the_size(values: list[int], log: bool, ticks: list[int]) -> None:
    heights = page._Heights(values)
    assert heights.log == log and heights.ticks() == ticks
    some = sorted({*values, -HUGE, -5, 0, 3, 10**4000} if log else {*values, -5, 0, 3})
    places = [heights.of(v) for v in some]
    assert places == sorted(places) and all(math.isfinite(v) for v in places)
    assert all(heights.limits[0] < heights.of(v) < heights.limits[1] for v in values)


def test_folders_are_short_and_each_lesson_has_its_own() -> None:
    names = [
        api.teach_folder(some).name
        for some in (
            ["1=1", "3=−6"], ["1=1", "3=6"], ["12,18=6"], ["12=6"],
            [f"1={HUGE}", f"2={HUGE}"], [f"1={HUGE}", f"2={HUGE + 1}"],
        )
    ]  # fmt: skip
    assert names[:4] == ["teach-1=1-3=-6", "teach-1=1-3=6", "teach-12-18=6", "teach-12=6"]
    assert len({*names}) == len(names) and max(map(len, names)) < 80


@pytest.mark.parametrize(("examples", "seconds"), [(["1=1", "1=2"], 20.0), (["1=1"], 0.0), (["../x=1"], 20.0)])
def test_bad_input_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples: list[str], seconds: float
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        api.teach(examples, seconds)
    with pytest.raises(UserError):
        api.teach(examples, seconds, out=tmp_path / "out")
    assert not [*tmp_path.iterdir()]
