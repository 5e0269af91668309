"""Every model: causal, the same with a cache as without, the same from `first` on."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from crevasse.errors import UserError
from crevasse.models import MODELS, losses
from crevasse.models.sharing import shared_beginnings
from crevasse.models.transformer import attend, rotate

TEXTS = [
    "transformer", "transformer:position=rotary,layers=3,heads=2", "transformer:position=none",
    "transformer:position=first", "looped", "looped:loops=3", "looped:position=rotary", "looped:position=first",
    "gru", "lstm:layers=2", "bilinear",
]  # fmt: skip


def build(text, vocabulary=11, context=80):
    torch.manual_seed(0)
    return MODELS.parse(text, width=24).build(vocabulary, context).eval()


def tokens(rows=5, length=9, seed=1):
    return torch.randint(0, 11, (rows, length), generator=torch.Generator().manual_seed(seed))


STEPS = torch.tensor([1, 2, 4, 2, 3])


@pytest.mark.parametrize("text", TEXTS)
def test_the_future_does_not_reach_the_past(text):
    model, x = build(text), tokens()
    changed = x.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 11
    a, b = model(x, STEPS), model(changed, STEPS)
    torch.testing.assert_close(a[:, :6], b[:, :6])
    assert not torch.allclose(a[:, 6:], b[:, 6:])


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("length", [9, 70])
def test_reading_token_by_token_with_a_cache_gives_the_same_states(text, length):
    model, x = build(text), tokens(length=length)
    whole, cache = model(x, STEPS), model.cache()
    parts = [model(x[:, :4], STEPS, cache=cache)]
    parts += [model(x[:, i : i + 1], STEPS, cache=cache) for i in range(4, length)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", TEXTS)
def test_states_from_a_column_on_are_the_last_columns_of_all_states(text):
    model, x = build(text), tokens()
    for first in (0, 3, 8):
        torch.testing.assert_close(model(x, STEPS, first=first), model(x, STEPS)[:, first:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", TEXTS)
def test_losses_are_those_of_the_plain_loop_with_logits_everywhere(text):
    model, x = build(text), tokens()
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[:, :4] = False
    mask[:, 5] = True
    got, logits, _ = losses(model, x, mask, STEPS, first=3)
    everywhere = model.head(model(x[:, :-1], STEPS))
    each = F.cross_entropy(everywhere.transpose(1, 2), x[:, 1:], reduction="none")[mask[:, 1:]]
    torch.testing.assert_close(got, each)
    assert len(logits) == mask.sum()
    wanted = torch.autograd.grad(each.mean(), list(model.parameters()), allow_unused=True)
    have = torch.autograd.grad(got.mean(), list(model.parameters()), allow_unused=True)
    for a, b in zip(have, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("text", ["looped", "looped:position=none"])
def test_a_row_that_loops_for_itself_does_as_it_would_alone(text):
    model, x = build(text), tokens()
    together = model(x, STEPS)
    for row in range(len(x)):
        torch.testing.assert_close(model(x[row : row + 1], STEPS[row : row + 1])[0], together[row])


def test_more_loops_are_another_function_with_the_same_weights():
    two, three = build("looped:loops=2"), build("looped:loops=3")
    three.load_state_dict(two.state_dict())
    assert not torch.allclose(two(tokens(), STEPS), three(tokens(), STEPS))


@pytest.mark.parametrize("width", [24, 96])
@pytest.mark.parametrize("length", [2, 4, 8, 33, 70])
def test_attention_and_its_gradient_are_those_of_torchs_multi_head_attention(length, width):
    torch.manual_seed(0)
    heads = 4
    reference = nn.MultiheadAttention(width, heads, batch_first=True)
    x = torch.randn(3, length, width)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    for first in (0, length - 1, length // 2):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        expected = reference(a, a, a, attn_mask=future, need_weights=False)[0][:, first:]
        q, k, v = (
            (b @ w.T + bias).view(3, length, heads, -1)
            for w, bias in zip(reference.in_proj_weight.split(width), reference.in_proj_bias.split(width), strict=True)
        )
        got = reference.out_proj(attend(q[:, first:], k, v, offset=first))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(first))
        expected.backward(slope)
        got.backward(slope)
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-5)
        with torch.no_grad():  # another way through, without a way back
            torch.testing.assert_close(attend(q[:, first:], k, v, offset=first), attend_in_doubles(q, k, v, first))


def attend_in_doubles(q, k, v, first):
    """Softmax of scaled scores over the past, written out."""
    q, k, v = (x.double() for x in (q, k, v))
    scores = torch.einsum("rqhp,rkhp->rhqk", q, k) / q.shape[3] ** 0.5
    future = torch.ones(scores.shape[2:], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(-1)
    return torch.einsum("rhqk,rkhp->rqhp", weights, v).flatten(2)[:, first:].float()


@pytest.mark.parametrize("model", ["transformer", "transformer:position=rotary,width=96", "looped"])
def test_rows_that_begin_alike_share_their_states_and_nothing_else(model):
    """Loss and gradient with shared beginnings are those of the rows one by one."""
    model = build(model) if "width" not in model else MODELS.parse(model).build(11, 80)
    x = torch.randint(0, 3, (40, 7), generator=torch.Generator().manual_seed(3))
    steps = torch.full((40,), 3)
    assert shared_beginnings(x).place is not None
    mask = torch.zeros(x.shape, dtype=torch.bool)
    mask[:, 5:] = True
    together = losses(model, x, mask, steps, first=4)[0].mean()
    alone = torch.stack(
        [losses(model, x[i : i + 1], mask[i : i + 1], steps[:1], 4)[0].mean() for i in range(40)]
    ).mean()
    torch.testing.assert_close(together, alone)
    a = torch.autograd.grad(together, list(model.parameters()))
    b = torch.autograd.grad(alone, list(model.parameters()))
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("model", ["transformer", "looped"])
def test_without_positions_the_length_of_a_run_cannot_be_told_unless_its_first_is_marked(model):
    run = torch.full((1, 9), 4)
    blind = build(f"{model}:position=none")(run, STEPS[2:3])[0]
    torch.testing.assert_close(blind, blind[:1].expand_as(blind))
    marked = build(f"{model}:position=first")(run, STEPS[2:3])[0]
    apart = torch.cdist(marked, marked) + 9 * torch.eye(9)
    assert apart.min() > 1e-3


def test_rotary_scores_depend_on_the_distance_alone():
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    near = (rotate(q, 7) * rotate(k, 4)).sum()
    torch.testing.assert_close((rotate(q, 43) * rotate(k, 40)).sum(), near)
    torch.testing.assert_close(rotate(q, 5).norm(), q.norm())
    assert not torch.allclose((rotate(q, 9) * rotate(k, 4)).sum(), near)


def test_the_bilinear_cell_is_its_formula():
    model, x = build("bilinear:products=32"), tokens()
    p = {n: v.detach() for n, v in model.named_parameters()}
    state = p["embed.weight"][x[:, 0]]
    for t in range(1, x.shape[1]):
        e = p["embed.weight"][x[:, t]]
        mixed = ((e @ p["by_symbol.weight"].T) * (state @ p["by_state.weight"].T)) @ p["out.weight"].T + p["out.bias"]
        centred = mixed - mixed.mean(1, keepdim=True)
        state = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(model(x, STEPS)[:, -1], state, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "text", ["transformer:width=0", "transformer:heads=3", "transformer:layers=0", "looped:loops=-1", "gru:width=-4",
             "lstm:layers=0", "bilinear:products=0", "transformer:position=sine", "transformer:depth=2"],
)  # fmt: skip
def test_impossible_models_are_refused_in_one_line(text):
    with pytest.raises(UserError) as error:
        MODELS.parse(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_that_are_never_written_get_no_probability_and_no_weights(text):
    torch.manual_seed(0)
    model = MODELS.parse(text, width=24).build(11, 80, silent=4)
    logits = model.head(model(tokens(), STEPS))
    assert logits.shape[2] == 11
    assert (logits[..., :4] == -torch.inf).all()
    assert torch.isfinite(logits[..., 4:]).all()
    loss = F.cross_entropy(logits[:, -1], torch.tensor([4, 5, 6, 7, 10]))
    grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    assert all(torch.isfinite(g).all() for g in grads if g is not None)
