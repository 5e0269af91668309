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
from crevasse.studies import EVIDENCE, STUDIES, VERDICT, decide, read_evidence
from crevasse.studies.base import write_evidence
from crevasse.studies.measures import MEASURES, fingerprint, read_measures, write_measures
from crevasse.terminal import print_verdict

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


def test_arms_have_the_titles_of_now_whatever_older_evidence_quotes(page_file: Path) -> None:
    text = words(without_plotly(page_file))
    assert "(paper: 61.9%)" in text and "about 20%" not in text and "99% or more" not in text


def only(where: Path, key: str, seeds: int = 9) -> Path:
    """The folder, of one result's trials alone, as `published:only=KEY` would leave it."""
    rows = [r for r in read_evidence(KEPT / EVIDENCE) if r["arm"].split("/")[0] == key][:seeds]
    ids = fingerprint([r["trial"] for r in read_evidence(KEPT / EVIDENCE)])
    measures = [m for m in read_measures(KEPT / MEASURES, ids) if m["claim"] == key]
    write_evidence(where / EVIDENCE, rows)
    write_measures(where / MEASURES, measures, fingerprint([r["trial"] for r in rows]))
    made = decide(STUDIES.parse(f"published:only={key}"), "minutes", rows, measures)
    store.write_json(where / VERDICT, made)
    return where


def test_one_result_alone_has_a_page_and_a_picture_only_of_shares(tmp_path: Path) -> None:
    text = without_plotly(build_report(only(tmp_path, "grokking-53")))
    assert text.count('class="claim"') == 1 and 'data-picture="shares"' in text
    text = without_plotly(build_report(only(tmp_path, "overlooping")))
    assert 'data-picture="shares"' not in text and "accuracy lost with four times the loops" in text


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    where = only(tmp_path, "grokking-53")
    rows = read_evidence(where / EVIDENCE)
    for r in rows[1:]:
        r["status"] = "diverged"
    write_evidence(where / EVIDENCE, rows)
    made = decide(STUDIES.parse("published:only=grokking-53"), "minutes", rows, [])
    store.write_json(where / VERDICT, made)
    found = [words(tr) for tr in re.findall(r"<tr.*?</tr>", sections(build_report(where))["grokking-53"], re.S)]
    assert found[1].startswith("seeds that pass 90% long after training all 1.00 – 1.00 of 1 ")


def test_evidence_of_something_else_is_refused_in_one_line(tmp_path: Path) -> None:
    where = folder(tmp_path)
    read = json.loads((where / VERDICT).read_text("utf-8"))
    rows = read_evidence(where / EVIDENCE)
    ids = fingerprint([r["trial"] for r in rows])
    measures = read_measures(where / MEASURES, ids)
    damaged = {"notes": "{", "faults": "[]", "chance": None, "config": "5", "s_max": None, "ceiling_random": None}
    spoiled: list[tuple[dict[str, Any], list[Any], list[Any] | None, str]] = [
        ({"study": "factorial"}, rows, measures, "factorial"),
        ({"study": "published:only=parity"}, rows, measures, "not that of these results"),
        ({"budget": "full"}, rows, measures, "not that of these results"),
        ({"budget": "fulll"}, rows, measures, "unknown budget 'fulll'; did you mean 'full'"),
        ({}, rows, None, "nothing is there of what was measured for overlooping"),
        ({}, rows, [m | {"version": 9} for m in measures], "overlooping was measured by another version"),
        ({}, rows, [*measures, measures[0] | {"claim": "C6"}], "C6, which is none of these results"),
        *(({}, [rows[0] | {k: v}, *rows[1:]], measures, f"damaged .the {k} of parity/gru") for k, v in damaged.items()),
    ]
    for said, some, measured, reason in spoiled:
        store.write_json(where / VERDICT, read | said)
        write_evidence(where / EVIDENCE, some)
        (where / MEASURES).unlink(missing_ok=True)
        if measured is not None:
            write_measures(where / MEASURES, measured, ids)
        with pytest.raises(UserError, match=reason) as error:
            build_report(where)
        assert "\n" not in str(error.value)
    write_evidence(where / EVIDENCE, rows)
    write_measures(where / MEASURES, measures, "other trials")
    with pytest.raises(UserError, match="was measured on other trials"):
        build_report(where)
    assert not (where / "index.html").exists()


@pytest.mark.parametrize("budget", ["minutes", "full"])
def test_the_terminal_shows_each_figure_beside_the_papers(
    budget: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # so that nothing is broken over two lines
    verdict = json.loads((KEPT.parent / f"published-{budget}" / VERDICT).read_text("utf-8"))
    print_verdict(verdict, Path("out"))
    shown = " ".join(capsys.readouterr().out.split())
    for r in verdict["published"]:
        assert r["title"] in shown and r["word"] in shown
        assert all(c["paper"].split()[0] in shown for c in r["checks"])
    (epoch,) = [
        c["ours"]["mean"] for r in verdict["published"] if r["result"] == "grokking-53" for c in r["checks"][1:]
    ]
    assert f"{epoch:,.0f} yes" in shown


def test_it_is_drawn_and_fits_a_desktop_and_a_phone(browser: Browser, page_file: Path) -> None:
    opened = Opened(browser, page_file, reduced_motion="reduce")
    page = opened.page
    opened.draw_all()
    assert opened.undrawn() == []
    assert page.locator('[data-picture="shares"] .ytick').count() >= 9
    assert [opened.width_at(width) for width in (1280, 390)] == [1280, 390]
    lines = opened.followed()
    assert len(lines) == 6
    assert all(-1 <= top < 844 and name == heading for name, heading, top in lines)
    assert opened.trouble == []
    opened.context.close()
