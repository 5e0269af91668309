"""The meter: its numbers against closed forms, its words against curves that people know, its picture in a browser."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import sync_playwright

from crevasse.errors import UserError
from crevasse.integrations import LockstepMeter
from crevasse.integrations.picture import spans
from crevasse.probes import lockstep

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def read(train, held_out, uniform=None, every=10) -> LockstepMeter:
    meter = LockstepMeter(uniform)
    for i, losses in enumerate(zip(train, held_out, strict=True)):
        meter.note(every * i, *losses)
    return meter


def follows(share: float, first: tuple[float, float] = (3.0, 4.0), n: int = 201) -> LockstepMeter:
    """Training loss falls to 0 evenly; held-out follows over a share of the way and then stays."""
    s = np.linspace(0, 1, n)
    return read(first[0] * (1 - s), first[1] * (1 - np.minimum(s, share)))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.8, 1.0])
def test_held_out_that_stops_following_has_the_closed_form(share):
    found = follows(share).result()
    assert found.score == pytest.approx(2 * share - share**2, abs=1e-6)
    assert (found.s_max, found.carried, found.memorising) == pytest.approx((1, share, 0), abs=1e-12)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_held_out_as_a_power_of_training_has_the_closed_form(power):
    s = np.linspace(0, 1, 4001)
    found = read(2 * (1 - s), 5 * (1 - s**power)).result()  # ∫ s^p = 1/(p + 1)
    assert found.score == pytest.approx(2 / (power + 1), abs=1e-5)


@given(st.lists(st.tuples(st.floats(0.01, 9), st.floats(0.01, 9)), min_size=2, max_size=12), st.floats(0.1, 10))
def test_each_loss_has_its_own_unit(pairs, factor):
    train, held_out = zip(*pairs, strict=True)
    one, other = read(train, held_out).result(), read(train, [factor * v for v in held_out]).result()
    assert one.s_max == other.s_max
    if one.score is not None:
        assert one.score == pytest.approx(other.score, abs=1e-6)


def test_training_from_nothing_counts_from_the_uniform_guess():
    train, held_out = [3.0, 2.0, 0.5], [3.2, 2.5, 1.5]
    found, expected = read(train, held_out, uniform=2.5).result(), lockstep(train, held_out, 2.5)
    assert (found.score, found.s_max, found.memorising) == (expected.score, expected.s_max, expected.memorising)
    assert "the uniform guess" in found.verdict


@pytest.mark.parametrize(
    ("train", "held_out", "finding", "words"),
    [
        ([3, 2, 1, 0.2], [3, 2.1, 1.1, 0.4], "learns", "93% of that carried over"),
        ([3, 2, 1, 0.1], [3, 3.1, 3.5, 4], "memorises", "held-out loss ended higher than it began"),
        ([3, 2, 1, 0.1], [3, 2.9, 2.8, 2.8], "memorises", "only 7% of that carried over"),
        ([3, 2, 1, 0.1], [3, 2, 1, 2], "in part", "lowest at step 20"),
        ([3, 1, 0.5, 0.1], [3, 3, 2.9, 0.3], "in part", "late"),
        ([3, 2.8, 2.5, 2.2], [3, 2.8, 2.5, 2.2], "too little to tell", "fell 27% below its start"),
        ([3, 2.8, 2.5, 2.2], [3, 3.1, 3.2, 3.3], "too little to tell", "does not follow"),
        ([3, 3.1, 3.2], [3, 3, 3], "too little to tell", "never fell"),
        ([3, 1, 0.1, math.nan, 0.1], [3, 1, 0.1, 2, 3], "learns", "From step 30 on"),
        ([0, 0, 0], [1, 1, 1], "too little to tell", "never fell"),
        ([math.nan, 1, 1], [1, 1, 1], "too little to tell", "From step 0 on"),
    ],
)  # fmt: skip
def test_the_verdict_says_what_the_curves_show(train, held_out, finding, words, tmp_path):
    meter = read(train, held_out)
    found = meter.result()
    assert found.finding == finding
    assert words in found.verdict
    assert meter.picture(tmp_path / "any.html").stat().st_size > 1e6  # no curve is too odd to draw


def test_a_run_that_turns_at_its_end_does_not_count_as_learning():
    s = np.linspace(0, 1, 41)
    turned = read(3 * (1 - s), 3 * (1 - np.where(s < 0.9, s, 1.8 - s)))
    assert turned.memorising_now
    found = turned.result()
    assert min(found.score, found.carried) > 0.7
    assert (found.finding, found.best_step) == ("in part", 360)
    assert "since step 360 held-out loss rises" in found.verdict


def test_noise_is_not_memory():
    rng, s = np.random.default_rng(0), np.linspace(0, 0.9, 40)
    for noise in (0.0, 0.02, 0.1):
        learning = LockstepMeter()
        for i, share in enumerate(s):
            learning.note(i, 3 * (1 - share), 3 * (1 - share) + noise * rng.normal())
            assert not learning.memorising_now
    assert read([3, 2, 1, 1, 1, 1], [3, 2, 1, 2, 3, 4]).memorising_now is False  # training stands still
    assert read([3, 2, 1, 0.5, 0.2, 0.1], [3, 2, 1, 2, 3, 4]).memorising_now is True


def test_readings_are_written_as_csv(tmp_path):
    path = read([2, 1, math.nan], [4, 3, 1]).write(tmp_path / "new" / "meter.csv")
    with path.open(encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert [r["step"] for r in rows] == ["0", "10", "20"]
    assert [rows[1][k] for k in ("train_loss", "held_out_loss", "s", "h")] == ["1", "3", "0.5", "0.25"]
    assert (rows[2]["train_loss"], rows[2]["held_out_loss"], rows[2]["s"]) == ("", "1", "")


def test_misuse_is_one_clear_line(tmp_path):
    meter = read([3], [3])
    for mistake, words in (
        (lambda: meter.note(0, 1, 1), "steps must rise"), (meter.result, "at least 2 readings; there are 1"),
        (lambda: meter.picture(tmp_path / "x.html"), "at least 2"), (lambda: LockstepMeter(0.0), "positive"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            mistake()
    assert not list(tmp_path.iterdir())


def test_neighbouring_memorising_intervals_are_one():
    assert spans([0, 1, 2, 3, 4], np.array([-1, -2, 1, -1.0])) == [(0, 2), (3, 4)]
    assert spans([0, 1, 2], np.array([np.nan, 0.5])) == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_in_a_browser(scheme, tmp_path: Path):
    s = np.linspace(0, 0.95, 20)
    path = read(3 * (1 - s), 3 * (1 - np.where(s < 0.5, s, 1 - s))).picture(tmp_path / "meter.html")
    said, asked = [], []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function("document.querySelectorAll('.picture .main-svg').length >= 4")
        assert "held-out loss rises" in page.inner_text("h1")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        # Two curves on the left and one on the right; the memorising stretch and the diagonal are drawn.
        assert page.locator(".picture .js-line").count() == 3
        assert page.locator("[data-picture=losses] .shapelayer path").count() == 2
        assert page.locator("[data-picture=way] .shapelayer path").count() == 2
        ink = page.evaluate("getComputedStyle(document.querySelector('[data-picture=losses] .js-line')).stroke")
        assert ink == {"light": "rgb(33, 37, 43)", "dark": "rgb(232, 230, 224)"}[scheme]
        browser.close()
    assert said == []
    assert asked == [path.as_uri()]
