"""The handwritten digits: as the package holds them, held out image by image."""

import gzip
import importlib.resources
import subprocess
import sys

import numpy as np
import pytest

import crevasse
from crevasse.errors import UserError
from crevasse.formats import FORMATS
from crevasse.tasks import Problems, make_splits, parse_task

DIGITS = parse_task("digits")


@pytest.fixture(scope="module")
def table():
    """Rows of 64 pixels and a digit, from the package's own file, past its reader."""
    file = importlib.resources.files("sklearn.datasets.data") / "digits.csv.gz"
    return np.loadtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), delimiter=",").astype(int)


def test_images_and_digits_are_those_of_the_package(table):
    x = DIGITS.every(DIGITS.train_sizes)
    assert x.tolist() == table[:, :64].tolist()
    assert DIGITS.solve(x).answers.tolist() == table[:, 64:].tolist()
    assert DIGITS.count(DIGITS.train_sizes) == len(x) == 1797
    assert (x.min(), x.max()) == (0, DIGITS.symbols - 1)
    assert set(table[:, 64]) == set(range(DIGITS.answer_count))
    assert (DIGITS.size(x) == 64).all() and DIGITS.valid(x).all()


def test_what_is_drawn_are_images_of_the_set(table):
    drawn = DIGITS.sample(np.random.default_rng(0), 300, DIGITS.train_sizes)
    assert drawn.shape == (300, 64) and len(np.unique(drawn, axis=0)) > 200
    assert set(map(tuple, drawn.tolist())) <= set(map(tuple, table[:, :64].tolist()))


@pytest.mark.parametrize("seed", range(3))
def test_no_image_stands_on_two_sides(table, seed):
    splits = make_splits(DIGITS, steer=200, seed=seed)
    sides = [splits.train, splits.steer, splits.validation, splits.tests["random"]]
    images = [tuple(row) for side in sides for row in side.x.tolist()]
    assert len(set(images)) == len(images)
    assert set(images) == set(map(tuple, table[:, :64].tolist()))
    assert [*splits.tests] == ["random"] and min(map(len, sides)) > 150


def test_noise_spoils_a_quarter_of_the_training_answers_and_no_other():
    splits = make_splits(DIGITS, 1000, labels="noisy", noise=0.25)
    wrong = [(p.solution.answers != DIGITS.solve(p.x).answers).sum() for p in (splits.train, splits.validation)]
    assert wrong == [250, 0]


def test_a_document_is_a_token_a_pixel_and_one_for_the_digit(table):
    x = table[:5, :64]
    form = FORMATS.parse("direct")
    script = form.script(DIGITS)
    encoded = form.encode(script, Problems(x, DIGITS.solve(x)))
    assert [script.numbers(row) for row in encoded.tokens.tolist()] == table[:5].tolist()
    assert encoded.loss.nonzero()[1].tolist() == [64] * 5


def test_an_image_of_the_set_is_solved_and_no_other(table):
    *pixels, digit = table[1234].tolist()
    assert crevasse.solve("digits", [",".join(map(str, pixels))])["answer"] == digit
    changed = [*pixels[:-1], 16 - pixels[-1]]
    for other, needle in ((pixels[:-1], "1797"), (changed, "1797"), ([*pixels[:-1], 17], "0 to 16")):
        with pytest.raises(UserError, match=needle) as error:
            crevasse.solve("digits", ["pixels=" + ",".join(map(str, other))])
        assert "\n" not in str(error.value)


def test_the_package_is_read_when_an_image_is_asked_for():
    code = (
        "import sys; from crevasse.tasks import parse_task; task = parse_task('digits'); task.inputs\n"
        "print('sklearn' in sys.modules); task.every(task.train_sizes); print('sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
