"""docs/claims.md and docs/lessons.md say what the evidence says."""

import re

import pytest

from crevasse.studies.claims.study import CLAIMS


@pytest.fixture(scope="module")
def page(tables):
    return tables.CLAIMS_PAGE.read_text("utf-8")


def test_every_claim_has_its_section(page):
    marks = re.findall(r"<!-- table (\w+) -->", page)
    assert marks == ["verdicts", *(c.number for c in CLAIMS)]
    assert re.findall(r"^## (\w+) · (.+)$", page, re.MULTILINE) == [(c.number, c.title) for c in CLAIMS]


@pytest.mark.slow
def test_verdicts_and_figures_are_those_of_the_evidence(tables, page):
    assert tables.filled(page, tables.claim_tables()) == page, "run `python docs/tables.py`"


def test_the_remarks_have_no_figures_of_their_own(page):
    """Each figure stands in a block that comes from the evidence."""
    prose = re.sub(r"<!-- table.*?<!-- end -->", "", page, flags=re.DOTALL)
    assert not re.findall(r"(?<!\w)[-−]?\.?\d[\d.,]*", re.sub(r"^## .*$", "", prose, flags=re.MULTILINE))


def test_the_page_of_the_lessons_says_what_their_evidence_says(tables):
    page = tables.LESSONS_PAGE.read_text("utf-8")
    assert re.findall(r"<!-- table (\w+) -->", page) == ["goals", "sure", "gaps", "reach"]
    assert tables.filled(page, tables.LESSON_TABLES) == page, "run `python docs/tables.py`"
