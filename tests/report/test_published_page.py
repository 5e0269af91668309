"""The page of the published results, built from the evidence that is kept: the paper's figure beside ours."""

import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from chromium import HOSTILE, Opened
from playwright.sync_api import Browser

from crevasse import store
from crevasse.errors import UserError
from crevasse.report import build_report
from crevasse.report.page import get_plotlyjs
from crevasse.studies import EVIDENCE, VERDICT, read_evidence
from crevasse.studies.measures import MEASURES

KEPT = Path(__file__).parents[2] / "evidence" / "published-minutes"


def folder(path: Path) -> Path:
    for name in (EVIDENCE, MEASURES, VERDICT):
        shutil.copy(KEPT / name, path / name)
    return path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(folder(tmp_path_factory.mktemp("page")))


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    read: list[dict[str, Any]] = json.loads((KEPT / VERDICT).read_text("utf-8"))["published"]
    return read


def without_plotly(file: Path) -> str:
    return file.read_text("utf-8").replace(get_plotlyjs(), "")


def words(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def sections(file: Path) -> dict[str, str]:
    return dict(re.findall(r'<section class="claim" id="([\w-]+)".*?>(.*?)</section>', without_plotly(file), re.S))


def test_each_result_has_a_line_and_a_section_with_the_papers_figures(
    page_file: Path, results: list[dict[str, Any]]
) -> None:
    lines = dict(re.findall(r'<li><a href="#([\w-]+)">(.*?)</a></li>', without_plotly(page_file), re.S))
    shown = {name: words(html) for name, html in sections(page_file).items()}
    assert [*lines] == [*shown] == [r["result"] for r in results]
    for r in results:
        assert words(lines[r["result"]]).startswith(f"{r['title']} {r['word']} ")
        for what in ("paper", "reported", "differs", "rule", "source"):
            assert " ".join(r[what].split()) in shown[r["result"]]
        for c in r["checks"]:
            assert c["what"] in shown[r["result"]] and f"(paper: {c['paper']})" in words(lines[r["result"]])


def test_our_figures_are_the_means_of_the_evidence(page_file: Path) -> None:
    rows = [r for r in read_evidence(KEPT / EVIDENCE) if r["arm"] == "parity/lstm"]
    mean = sum(r["extrapolation"] for r in rows) / len(rows)
    best = max(r["extrapolation"] for r in rows)
    (line,) = [tr for tr in re.findall(r"<tr.*?</tr>", sections(page_file)["parity"], re.S) if "LSTM" in tr]
    assert words(line).startswith(f"LSTM on longer problems 100% {mean:.2f}".replace(" 0.", " ."))
    assert words(line).endswith(f"{best:.2f} of {len(rows)} no")


def test_results_are_compared_again_and_those_of_the_file_are_not_shown(tmp_path: Path, page_file: Path) -> None:
    where = folder(tmp_path)
    forged = json.loads((where / VERDICT).read_text("utf-8"))
    store.write_json(where / VERDICT, forged | {"published": [HOSTILE], "answer": "All of them are repeated."})
    assert without_plotly(build_report(where)) == without_plotly(page_file)


def test_evidence_of_something_else_is_refused_in_one_line(tmp_path: Path) -> None:
    where = folder(tmp_path)
    read = json.loads((where / VERDICT).read_text("utf-8"))
    store.write_json(where / VERDICT, read | {"study": "factorial"})
    with pytest.raises(UserError, match="factorial") as error:
        build_report(where)
    assert "\n" not in str(error.value)
    store.write_json(where / VERDICT, read)
    shutil.copy(KEPT.parent / "claims-minutes" / MEASURES, where / MEASURES)
    with pytest.raises(UserError, match="was measured on other trials"):
        build_report(where)
    assert not (where / "index.html").exists()


def test_it_is_drawn_and_fits_a_desktop_and_a_phone(browser: Browser, page_file: Path) -> None:
    opened = Opened(browser, page_file, reduced_motion="reduce")
    page = opened.page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")  # draws all of them
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert opened.undrawn() == []
    assert page.locator('[data-picture="shares"] .ytick').count() >= 9
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        page.wait_for_timeout(400)  # plotly waits for a window that comes to rest
        assert page.evaluate("document.documentElement.scrollWidth") == width
    for line in page.locator(".verdicts a").all():
        line.evaluate("a => a.click()")
        section = page.locator(f".claim{line.get_attribute('href')}")
        assert -1 <= section.evaluate("e => e.getBoundingClientRect().top") < 844
        assert line.locator("b").inner_text() == section.locator("h2").inner_text()
    assert opened.trouble == []
    opened.context.close()
