"""A narrow model is the model itself where all weights outside its window are zero."""

import pytest
import torch

from crevasse.config import TrialConfig
from crevasse.documents import Data, Rows
from crevasse.formats import FORMATS
from crevasse.models import MODELS
from crevasse.passes import Alone, Look, Population
from crevasse.processes import World
from crevasse.rules import RULES, Layout, Weights
from crevasse.tasks import parse_task

NARROW = {
    "bilinear:width=8,products=12": (("width", 3), ("products", 5)),
    "gru:width=8,layers=2": (("width", 3),),
    "lstm:width=8": (("width", 5),),
    "transformer:width=16,heads=4": (("width", 6), ("part", 2), ("hidden", 10)),
    "looped:width=16,heads=2": (("width", 16), ("part", 3), ("hidden", 64)),
}


def problem(text):
    config = TrialConfig(
        parse_task("iterated-product:p=5,T=3"),
        FORMATS.parse("direct"),
        MODELS.parse(text),
        RULES.parse("sgd"),
        train=40,
    )
    data = Data(config)
    torch.manual_seed(1)
    model = config.model.build(data.script.size, data.context, data.silent)
    return model, Weights(model), Rows.of(data.train)


@pytest.mark.parametrize("text", NARROW)
def test_a_narrow_model_is_the_whole_one_with_zeros(text):
    model, weights, rows = problem(text)
    window = NARROW[text]
    index = weights.layout.window(window)
    assert 0 < len(index) < len(weights.flat)
    g = torch.Generator().manual_seed(2)
    at = torch.randn(3, len(index), generator=g) * 0.4
    part = torch.arange(30)
    population = Population(model, weights.layout)
    found = population.look(Look(rows, (part,), True, at, window=window))
    read = population.look(Look(rows, (part,), False, at, window=window))
    alone = Alone(model, weights, 0, World())
    for i in range(3):
        whole = torch.zeros_like(weights.flat)
        whole[index] = at[i]
        seen = alone.look(Look(rows, (part,), True, whole))
        torch.testing.assert_close(found.losses[i], seen.losses[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(read.losses[i], seen.losses[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.gradients[i], seen.gradients[0][index], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("text", NARROW)
def test_the_layout_of_the_window_is_that_of_a_narrow_module(text):
    model, weights, _ = problem(text)
    narrow = weights.layout.narrow(NARROW[text])
    assert narrow.size == len(weights.layout.window(NARROW[text]))
    sides = Population(model, weights.layout)._side(NARROW[text], 2)
    assert [p.shape[1:] for p in sides.weights.parameters] == [torch.Size(part.shape) for part in narrow.parts]
    whole = tuple(weights.layout.widths.items())
    assert weights.layout.narrow(whole) == weights.layout
    assert torch.equal(weights.layout.window(whole), torch.arange(len(weights.flat)))


def test_what_cannot_be_narrowed_says_so():
    _, weights, _ = problem("transformer:position=rotary")
    assert weights.layout.widths == {} and Layout.flat(3).widths == {}
    with pytest.raises(ValueError, match="does not fit"):
        weights.layout.window((("width", 3),))
    _, weights, _ = problem("bilinear:width=8,products=12")
    for window in [(("width", 9),), (("width", 0),), (("height", 1),)]:
        with pytest.raises(ValueError, match="does not fit"):
            weights.layout.window(window)
