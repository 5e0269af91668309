"""Constructed weights, by the door that tasks come through: all answers right, and one line where there are none."""

import pytest
import torch

from crevasse.config import TrialConfig
from crevasse.errors import UserError
from crevasse.formats import FORMATS
from crevasse.landscape import Ground
from crevasse.models import MODELS
from crevasse.rules import RULES
from crevasse.solutions import constructed, constructed_scores, doubling_model
from crevasse.tasks import parse_task

CASES = [
    ("iterated-product:p=5,T=1-4,beyond=9", "bilinear"),
    ("iterated-product:p=13,T=6,beyond=7-8", "bilinear"),  # the crevasse cell itself
    ("words:group=S3,T=1-4,gap=,beyond=9", "gru"),
    ("words:group=S3,T=1-4,gap=,beyond=9", "looped"),
    ("affine:p=5,maps=fresh,n=1-2,gap=,beyond=3", "bilinear"),
    ("factorial-mod:n=1-4,p=5+7,gap=,beyond=5-6", "bilinear:width=45,products=67"),
    ("parity:T=1-10,beyond=11-20", "bilinear"),
    ("parity:T=1-10,beyond=11-20", "transformer"),
    ("cycle:T=1-10,beyond=11-20", "transformer"),
    ("modular:p=59", "mlp"),
]


def config(task, model, form="direct", **fields):
    model = MODELS.parse(model) if isinstance(model, str) else model
    fields = {"train": 20, "held_out": 200, **fields}
    return TrialConfig(parse_task(task), FORMATS.parse(form), model, RULES.parse("sgd"), steps=0, **fields)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "model"), CASES)
def test_a_construction_answers_all_that_was_held_out(task, model):
    asked = config(task, model, "filler", train=4) if "factorial" in task else config(task, model)
    scores = constructed_scores(asked)
    assert scores and set(scores.values()) == {1.0}
    # As a vector it is the same model.
    weights = constructed(asked)
    ground = Ground(asked, next(iter(scores)))
    assert ground.holds(weights) and ground.exact(weights) == 1.0


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_m_layers_reach_two_to_the_m(layers):
    for length, right in ((2**layers, True), (2**layers + 1, False)):
        task = f"iterated-product:p=7,T={length},beyond={length + 1}"
        scores = constructed_scores(config(task, doubling_model(parse_task(task), layers), train=4))
        assert (scores["random"] == 1.0) == right


def test_the_smallest_transformer_is_the_smallest():
    task = parse_task("iterated-product:p=5,T=2,beyond=3")
    model = doubling_model(task, 2)
    assert set(constructed_scores(config("iterated-product:p=5,T=2,beyond=3", model, train=4)).values()) <= {1.0}
    narrower = type(model)(layers=2, width=model.width - 4, heads=2)
    with pytest.raises(UserError, match="take a transformer of 2 layers"):
        constructed(config("iterated-product:p=5,T=2,beyond=3", narrower, train=4))


@pytest.mark.parametrize(
    ("task", "model", "said"),
    [
        ("quadratic", "bilinear", "no weights are known by formula for .* on quadratic"),
        ("affine", "bilinear", "with maps=fresh"),
        ("factorial-mod", "bilinear", "needs the format filler"),
        ("modular:op=mul,p=59", "mlp", "no weights are known by formula for mlp on modular"),
        ("words:group=S5", "bilinear", "takes? .*products"),
    ],
)
def test_where_there_is_none_it_is_said(task, model, said):
    with pytest.raises(UserError, match=said):
        constructed(config(task, model))


def test_a_ground_gives_a_loss_that_can_be_differentiated():
    asked = config("iterated-product:p=5,T=3,beyond=4", "bilinear:width=8,products=12")
    ground = Ground(asked)
    weights = torch.randn(sum(s.numel() for s in ground.shapes.values())) * 0.3
    at = weights.clone().requires_grad_()
    (slope,) = torch.autograd.grad(ground.loss(at), at)
    way = torch.randn(len(weights), generator=torch.Generator().manual_seed(0))
    way /= way.norm()
    rise = (ground.loss(weights + 1e-2 * way) - ground.loss(weights - 1e-2 * way)) / 2e-2
    assert float(rise) == pytest.approx(float(slope @ way), rel=0.02, abs=1e-3)
    with pytest.raises(UserError, match="has no split interpolation"):
        Ground(asked, "interpolation")
