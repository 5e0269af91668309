"""A local judge against transformers' own likelihoods, what names a judge, and runs with one and without."""

import json
import math
from pathlib import Path

import pytest
import torch

from crevasse.errors import UserError
from crevasse.lessons.apply import Training
from crevasse.lessons.causes import live
from crevasse.lessons.choice import lesson_of, shortest
from crevasse.lessons.judge import CONTEXT, KEY, Cost, EndpointJudge, PretrainedJudge, judged, parse_judge
from crevasse.lessons.regret import gap_closed, run_worlds

INCIDENT = "IHOP on Main Street, Saturday, 1 pm, Francois"
LESSONS = [f"lesson of the kind {letter}" for letter in "abcdefghijkl"]
QUICK = Training(steps=30, memory_steps=30)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny random model with strong opinions: its embeddings, which are its head too, are large."""
    pytest.importorskip("transformers")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent.parent / "llm"))
        from tiny import make_tiny
    from safetensors.torch import load_file, save_file

    folder = make_tiny(tmp_path_factory.mktemp("judge") / "model")
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"] *= 20
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.slow
def test_the_chosen_number_is_the_likeliest_by_transformers_itself(model):
    """One forward pass a number over all of its text, without a cache or rows that are filled up."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    judge = parse_judge(f"pretrained:{model}")
    ours = judge.log_likelihoods(INCIDENT, LESSONS)
    asked, forward = [], judge._model.forward
    judge._model.forward = lambda tokens, *rest, **more: (asked.append(tokens), forward(tokens, *rest, **more))[1]
    tokenizer, net = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    chosen = judge.choose(INCIDENT, LESSONS)
    question = [*asked[0][0].tolist(), asked[1][0, 0].item()]
    text = tokenizer.decode(question)
    assert json.dumps(INCIDENT) in text and f'12. "{LESSONS[11]}"' in text and text.endswith("number:")
    theirs, read = [], len(question) - 1
    for i in range(1, 13):
        tail = tokenizer.encode(f" {i}\n", add_special_tokens=False)
        with torch.no_grad():
            said = net(torch.tensor([question + tail])).logits.log_softmax(-1)[0]
        theirs.append(sum(said[len(question) - 1 + k, token].item() for k, token in enumerate(tail)))
        read += len(tail)
    assert ours.tolist() == pytest.approx(theirs, rel=1e-4) and max(theirs) - min(theirs) > 0.1
    assert chosen == (1 + theirs.index(max(theirs)),)
    assert sum(map(math.exp, ours.tolist())) < 1  # they exclude one another
    assert (judge.cost.calls, judge.cost.silent, judge.cost.tokens) == (1, 0, 2 * read)


@pytest.mark.slow
def test_its_opinion_moves_the_odds_of_one_lesson_and_what_is_too_long_is_none(model, restaurant):
    judge = PretrainedJudge(str(model))
    believed = lesson_of(live(restaurant, 5), 1, shortest(restaurant))
    moved = judged(believed, judge)
    factors = sorted(moved.share(scope) / believed.share(scope) for scope in believed.top(6))
    assert factors[:5] == pytest.approx([factors[0]] * 5) and factors[5] == pytest.approx(3 * factors[0])
    assert judge.choose("long " * CONTEXT, LESSONS) == () == judge.choose(INCIDENT, [])
    assert (judge.cost.calls, judge.cost.failed, judge.cost.silent) == (3, 2, 2)


@pytest.mark.slow
def test_a_model_that_reads_too_little_is_refused(model, tmp_path):
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    with pytest.raises(UserError, match="reads at most 512 tokens"):
        parse_judge(f"pretrained:{tmp_path}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "pretrained:MODEL or endpoint:NAME@URL"),
        ("pretrained", "pretrained:MODEL or"),
        ("pretrained:", "pretrained:MODEL or"),
        ("oracle:me", "'oracle:me'"),
        ("endpoint:http://127.0.0.1:9/v1", "NAME@URL"),
        ("endpoint:@http://127.0.0.1:9/v1", "NAME@URL"),
        ("endpoint:small@", "http"),
        ("endpoint:small@file:///etc/passwd", "http"),
        ("endpoint:small@http://127.0.0.1:9/a b", "http"),
        ("pretrained:./nowhere", "nowhere"),
        ("pretrained:smolm2-135m", "smollm2-135m"),
    ],
)
def test_what_names_no_judge_gets_one_line(text, says, monkeypatch):
    monkeypatch.setenv(KEY, "secret")
    with pytest.raises(UserError, match=says) as error:
        parse_judge(text)
    assert "\n" not in str(error.value) and "secret" not in str(error.value)


def test_the_key_comes_from_the_environment_and_goes_to_its_own_host_alone(endpoint, monkeypatch):
    url, answers, asked = endpoint
    monkeypatch.setenv(KEY, "secret")
    judge = parse_judge(f"endpoint:small@{url}/a@b")
    assert (judge.url, judge.model) == (f"{url}/a@b", "small") and "secret" not in repr(judge)
    answers += [(302, {"Location": f"{url}/elsewhere"}, b""), (404, {}, b""), (0, {}, b"")]
    assert judge.choose(INCIDENT, LESSONS) == () == judge.choose(INCIDENT, LESSONS)
    assert [headers.get("Authorization") for _, headers, _ in asked] == ["Bearer secret", None, "Bearer secret"]
    assert (judge.cost.calls, judge.cost.failed) == (2, 2)
    monkeypatch.delenv(KEY)
    assert parse_judge(f"endpoint:small@{url}").key == ""
    broken = EndpointJudge(url, "small", key="no\nheader")
    assert broken.choose(INCIDENT, LESSONS) == () and broken.cost.failed == 1


class Fixed:
    """A judge that always chooses the same."""

    def __init__(self, *chosen):
        self.chosen, self.cost = chosen, Cost()

    def choose(self, incident, candidates):
        self.cost.calls += 1
        self.cost.tokens += len(candidates)
        return self.chosen


def test_a_run_without_a_judge_is_bitwise_that_of_a_run_with_one_less_what_is_judged(restaurant):
    methods = ("nothing", "common-sense", "oracle")
    options = {"methods": methods, "after": (1, 3), "training": QUICK, "lessons": 3}
    alone = run_worlds(restaurant, 3, 7, **options)
    judge = Fixed(6)
    both = run_worlds(restaurant, 3, 7, **options, judge=judge, asked=2)
    assert [r for r in both if r["method"] != "judged"] == alone
    assert not any("cost" in r for r in alone) and {r["method"] for r in alone} == {*methods}
    rows = [r for r in both if r["method"] == "judged"]
    assert [(r["world"], r["n"]) for r in rows] == [(0, 1), (0, 3), (1, 1), (1, 3)]
    assert sum(r["cost"]["calls"] for r in rows) == judge.cost.calls == 4
    assert sum(r["cost"]["tokens"] for r in rows) == judge.cost.tokens == 24
    plain = {(r["world"], r["n"]): r for r in alone if r["method"] == "common-sense"}
    # An opinion for a lesson other than none makes none less likely, by what it took.
    assert all(r["nothing"] < plain[r["world"], r["n"]]["nothing"] for r in rows)
    assert gap_closed(both, "judged", 3) == gap_closed([r for r in both if r["world"] < 2], "judged", 3)


def test_a_judge_without_opinions_changes_nothing_and_none_is_asked_without_lives(restaurant):
    options = {"methods": ("common-sense",), "after": (1,), "training": QUICK, "lessons": 0}
    rows = run_worlds(restaurant, 2, 7, **options, judge=Fixed())
    common = [r for r in rows if r["method"] == "common-sense"]
    for a, b in zip(common, [r for r in rows if r["method"] == "judged"], strict=True):
        same = {k: v for k, v in b.items() if isinstance(v, float)}
        assert same == pytest.approx({k: a[k] for k in same}, abs=1e-6)
    judge = Fixed(1)
    assert run_worlds(restaurant, 2, 7, **options, judge=judge, asked=0) == common
    assert judge.cost.calls == 0
