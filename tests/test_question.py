"""docs/question.md says what the evidence says: its tables are those of docs/tables.py, and so are its sentences."""

import re

import pytest


@pytest.fixture(scope="module")
def page(tables):
    return tables.PAGE.read_text("utf-8")


@pytest.mark.slow
def test_its_tables_are_those_of_the_evidence(tables, page):
    assert set(re.findall(r"<!-- table (\w+) -->", page)) == set(tables.TABLES)
    assert tables.filled(page) == page, "run `python docs/tables.py`"


def test_its_sentences_are_those_of_the_evidence(tables, page):
    text = " ".join(page.split())
    sentences = tables.sentences()
    assert len(sentences) > 5
    for sentence in sentences:
        assert sentence in text


def test_no_other_figure_stands_in_its_prose(tables, page):
    """Numbers in prose come from a sentence that is checked, or is no result but a setting."""
    text = " ".join(re.sub(r"<!-- table.*?<!-- end -->", "", page, flags=re.DOTALL).split())
    for sentence in tables.sentences():
        text = text.replace(sentence, "")
    settings = {
        "1",
        "2",
        "5",
        "12",
        "13",
        "59",
        "95",
        "97",
        "100",
        "500",
        "1000",
        "2000",
        "1,000",
        "2,000",
        "3000",
        "256",
    }
    settings |= {"570", "730", "535", "1,348"}  # what others published
    left = set(re.findall(r"(?<![\w.:=/-])[−-]?\.?\d[\d,.]*", text))
    assert {n.rstrip(".,") for n in left} <= settings
