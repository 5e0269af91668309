"""Documents, loss masks, free running and its tool."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from crevasse.errors import UserError
from crevasse.formats import FORMATS
from crevasse.formats.generate import generate, token_limit
from crevasse.formats.script import CALL, END, EQUALS, FILLER, MARKS, UNREADABLE
from crevasse.formats.trace import Calculator
from crevasse.models import MODELS
from crevasse.tasks import TASKS, Problems, make_splits, parse_problem, parse_task

EVERY_TASK = [n for n in TASKS if n != "pairs"]


def encoded(task_text, form_text, rows=None, **more):
    task, form = parse_task(task_text), FORMATS.parse(form_text)
    script = form.script(task)
    if rows is None:
        problems = make_splits(task, held_out=30, **more).train
        problems = problems.take(np.arange(min(len(problems), 60)))
    else:
        x = np.concatenate([parse_problem(task, r) for r in rows])
        problems = Problems(x, task.solve(x))
    return task, form, script, form.encode(script, problems), problems


@pytest.mark.parametrize(
    ("task", "form", "problem", "document", "loss"),
    [
        ("iterated-product", "direct", ["x=3,5,7"], "3 5 7 1", "___^"),
        ("iterated-product", "filler", ["x=3,5,7"], "3 5 7 · · 1", "_____^"),
        ("iterated-product", "trace", ["x=3,5,7"], "3 5 7 = 2 1 # 1 <end>", "____^^^^^"),
        ("iterated-product", "tool", ["x=3,5,7"], "3 5 7 = 3 5 → 2 2 7 → 1 # 1 <end>", "____^^^_^^^_^^^"),
        ("iterated-product", "direct:notation=digits", ["x=3,5,12"], "3,5,12=11<end>", "_______^^^"),
        ("iterated-product", "direct:notation=reversed", ["x=3,5,12"], "3,5,21=11<end>", "_______^^^"),
        ("iterated-product:p=101", "trace:notation=reversed,steps=states", ["x=50,3,2"],
         "05,3,2=94;89;#89<end>", "_______^^^^^^^^^^"),
        ("factorial", "direct", ["10"], "10=3.6288e+06<end>", "___" + "^" * 11),
        ("factorial", "trace", ["4"], "4=4*3=12;12*2=24;24*1=24;#24<end>", "__" + "^" * 27),
        ("factorial", "tool", ["3"], "3=3*2→6;6*1→6;#6<end>", "__^^^^__^^^^__^^^"),
        ("fibonacci:m=13", "tool:notation=digits", ["u=5", "v=9", "n=1"], "5,9,1=5,9+→9,1;#9<end>",
         "______^^^^^____^^^"),
        ("addition", "trace", ["a=95", "b=7"], "95,7=1;1;#102<end>", "_____^^^^^^^^^"),
    ],
)  # fmt: skip
def test_a_document_reads_as_written_and_only_the_learners_own_words_carry_loss(task, form, problem, document, loss):
    _, _, script, e, _ = encoded(task, form, [problem])
    length = int(e.lengths[0])
    assert script.text(e.tokens[0, :length].tolist()) == document
    assert "".join("^" if v else "_" for v in e.loss[0, :length]) == loss
    assert not e.loss[0, length:].any()
    assert int(e.prompt[0]) == loss.index("^")


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY_TASK)
@pytest.mark.parametrize("form", ["direct", "filler", "trace", "tool"])
@pytest.mark.parametrize("notation", ["auto", "residues", "digits", "reversed"])
def test_every_task_goes_with_every_format_or_says_why_not(name, form, notation):
    task = parse_task(name)
    has_steps = task.call_widths is not None
    if notation == "residues" and task.kind != "residue":
        refusal = "cannot be written in residues"
    elif notation == "reversed" and (getattr(task, "figures", 0) or task.kind == "text"):
        refusal = "reversed digits need plain numbers"
    elif form in ("trace", "tool") and name in ("modular", "digits", "copy"):
        refusal = "has no (trace|steps)"
    elif form == "tool" and not has_steps:
        refusal = "has no steps for a tool"
    else:
        refusal = None
    if refusal is not None:
        with pytest.raises(UserError, match=refusal):
            encoded(name, f"{form}:notation={notation}")
        return
    _, _, script, e, problems = encoded(name, f"{form}:notation={notation}")
    positions = np.arange(e.tokens.shape[1])
    assert not e.loss[positions < e.prompt[:, None]].any(), "problem tokens carry no loss"
    assert not e.loss[positions >= e.lengths[:, None]].any(), "what fills a row up carries no loss"
    assert (e.tokens < len(script.vocabulary)).all()
    assert (e.loss.sum(1) > 0).all()
    assert not (e.loss & (e.tokens == FILLER)).any()
    # The answer alone reads back as the answer.
    for row, answer in zip(e.answers, problems.solution.answers, strict=True):
        text = "".join(script.vocabulary[t] for t in row if t >= len(MARKS) or t < -1)
        spelt = [script.task.spell(int(v)) for v in answer]
        spelt = [v[::-1] for v in spelt] if notation == "reversed" else spelt
        assert text == ("" if script.residues else ",").join(spelt)


def test_tool_results_carry_no_loss_and_everything_else_after_the_prompt_does():
    _, _, script, e, _ = encoded("factorial", "tool")
    for tokens, loss, prompt, length in zip(e.tokens, e.loss, e.prompt, e.lengths, strict=True):
        given = False
        for t, carries in zip(tokens[prompt:length], loss[prompt:length], strict=True):
            assert bool(carries) == (not given)
            if t == CALL:
                given = True
            elif given and script.vocabulary[t] == ";":
                given = False


class Reads:
    """What a model that keeps all it has read needs for free running."""

    def cache(self):
        return []

    def keep(self, cache, rows):
        return [torch.cat(cache, dim=1)[rows]]


class Parrot(Reads):
    """A model that knows the documents by heart: it writes the true next token wherever the loss asks for one."""

    def __init__(self, e, vocabulary):
        self.documents = {tuple(r[:p]): r for r, p in zip(e.tokens.tolist(), e.prompt, strict=True)}
        self.loss = {tuple(r[:p]): m for r, p, m in zip(e.tokens.tolist(), e.prompt, e.loss, strict=True)}
        self.vocabulary = vocabulary

    def next_logits(self, tokens, steps, cache):
        cache.append(tokens)
        seen = torch.cat(cache, dim=1)
        logits = torch.zeros(len(seen), self.vocabulary)
        for row, read in enumerate(seen.tolist()):
            key = next((k for k in self.documents if tuple(read[: len(k)]) == k), None)
            at = len(read)
            if key is not None and at < len(self.documents[key]) and self.loss[key][at]:
                assert read == self.documents[key][:at], "what was put in is what stands in the document"
                logits[row, self.documents[key][at]] = 1
            else:
                logits[row, UNREADABLE] = 1
        return logits


@pytest.mark.parametrize(
    ("task", "form"),
    [
        ("iterated-product:T=1-4", "direct"), ("iterated-product:T=1-4", "filler"),
        ("iterated-product:T=1-4", "trace"), ("iterated-product:T=1-4", "tool"),
        ("factorial", "direct"), ("factorial", "trace"), ("factorial", "tool"),
        ("fibonacci:m=13", "tool"), ("fibonacci:m=13", "tool:notation=digits"),
        ("affine:maps=fresh", "tool:notation=reversed"), ("words:group=S3,T=1-2,gap=,beyond=", "tool"),
        ("rising-product", "trace:steps=calls"),
    ],
)  # fmt: skip
def test_one_who_writes_the_documents_word_for_word_is_right_everywhere(task, form):
    _, f, script, e, problems = encoded(task, form)
    written = generate(Parrot(e, len(script.vocabulary)), f, script, e, problems.x, rows=16)
    assert all(o.correct for o in written)
    assert not any(o.unreadable for o in written)


def test_with_rounded_arithmetic_even_a_perfect_learner_stays_below_the_ceiling():
    task, form = parse_task("factorial"), FORMATS.parse("tool:arithmetic=rounded")
    script, splits = form.script(task), make_splits(task)
    tests = [splits.tests["interpolation"], splits.tests["extrapolation"]]
    assert [form.ceiling(script, p) * len(p) for p in (splits.train, *tests)] == pytest.approx([11, 3, 1])
    for problems in (splits.train, *tests):
        e = form.encode(script, problems)
        written = generate(Follower(script), form, script, e, problems.x)
        assert np.mean([o.correct for o in written]) == pytest.approx(form.ceiling(script, problems))


@pytest.mark.parametrize("arithmetic", ["exact", "rounded"])
def test_a_rule_follower_that_never_saw_the_documents_reaches_the_ceiling(arithmetic):
    task, form = parse_task("factorial"), FORMATS.parse(f"tool:arithmetic={arithmetic}")
    script, problems = form.script(task), make_splits(task).tests["extrapolation"]
    written = generate(Follower(script), form, script, form.encode(script, problems), problems.x)
    assert np.mean([o.correct for o in written]) == pytest.approx(1.0 if arithmetic == "exact" else 0.2)


class Follower(Reads):
    """Writes n!'s steps by the rule alone: copies the last result, counts down, and stops after 1."""

    def __init__(self, script):
        self.script = script

    def next_logits(self, tokens, steps, cache):
        cache.append(tokens)
        logits = torch.zeros(len(tokens), len(self.script.vocabulary))
        for row, read in enumerate(torch.cat(cache, dim=1).tolist()):
            logits[row, self.wanted(read)] = 1
        return logits

    def wanted(self, read):
        text = "".join(self.script.vocabulary[t] if t != END else "" for t in read)
        problem, _, own = text.partition("=")
        *done, now = own.split(";")
        last = done[-1].partition("→")[2] if done else problem
        factor = int(problem) - 1 - len(done)
        target = f"{last}*{factor}→" if factor >= 1 else f"#{last}"
        if "→" in now or not target.startswith(now):
            return UNREADABLE  # the calculator writes now, and what we say is not read
        if now == target:
            return END
        symbol = target[len(now)]
        marks = {"→": CALL, "#": MARKS.index("#")}
        return marks.get(symbol, self.script.vocabulary.index(symbol, len(MARKS)) if symbol not in marks else 0)


class Scripted:
    """Writes one text whatever it reads."""

    def __init__(self, tokens, vocabulary):
        self.tokens, self.vocabulary = tokens, vocabulary

    def cache(self):
        return [0]

    def next_logits(self, tokens, steps, cache):
        logits = torch.zeros(len(tokens), self.vocabulary)
        logits[:, self.tokens[min(cache[0], len(self.tokens) - 1)]] = 1
        cache[0] += 1
        return logits

    def keep(self, cache, rows):
        return cache


@pytest.mark.parametrize("call", ["5**4", "*4", "5*", "5", "5*4*3", "5.5*4", "9e+999*9e+999"])
def test_a_call_that_cannot_be_read_is_kept_and_answered_with_a_question_mark(call):
    _task, form, script, e, problems = encoded("factorial:figures=7", "tool", [["5"]])
    own = [*(script.vocabulary.index(c, len(MARKS)) for c in call), CALL, UNREADABLE, UNREADABLE, END]
    written = generate(Scripted(own, len(script.vocabulary)), form, script, e, problems.x)[0]
    assert written.unreadable == (call,)
    assert not written.correct
    assert script.text(written.tokens).startswith(f"{call}→?;")


def test_the_calculators_memory_keeps_the_digits_that_its_display_leaves_out():
    task, _, script, _, problems = encoded("factorial", "tool", [["24"]])
    for arithmetic in ("exact", "rounded"):
        calculator = Calculator(script, problems.x[0], FORMATS.parse(f"tool:arithmetic={arithmetic}"))
        shown, own = "24", []
        for factor in range(23, 1, -1):
            own += [script.vocabulary.index(c, len(MARKS)) for c in f"{shown}*{factor}"] + [CALL]
            result = calculator.answer(own)
            shown = script.text(result).rstrip(";")
            own += result
        assert (shown == task.spell(math.factorial(24))) == (arithmetic == "exact")


MODEL_TEXTS = ["transformer:width=16", "transformer:width=16,position=rotary",
               "transformer:width=16,position=first", "looped:width=16",
               "looped:width=16,loops=2",
               "gru:width=16", "lstm:width=16,layers=2", "bilinear:width=16,products=16"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("model", MODEL_TEXTS)
@pytest.mark.parametrize(("task", "form"), [("iterated-product:T=1-4", "tool"), ("factorial", "trace")])
def test_batched_running_with_a_cache_writes_what_each_row_alone_writes_without_one(model, task, form):
    _, f, script, e, problems = encoded(task, form)
    some = dataclasses.replace(e, **{k.name: getattr(e, k.name)[:9] for k in dataclasses.fields(e)})
    torch.manual_seed(3)
    built = MODELS.parse(model).build(len(script.vocabulary), token_limit(some, f.fixed_width(script))).eval()
    written = generate(built, f, script, some, problems.x, rows=4)
    for row, output in enumerate(written):
        assert output.tokens == alone(built, f, script, some, problems.x, row)


@torch.no_grad()
def alone(model, form, script, e, x, row):
    """The plainest generation there is: one row, everything read anew for each token."""
    read = e.tokens[row, : e.prompt[row]].tolist()
    prompt, pending = len(read), []
    tool = Calculator(script, x[row], form) if form.tool else None
    while len(read) < token_limit(e, form.fixed_width(script)):
        if pending:
            read.append(pending.pop(0))
        else:
            tokens, steps = torch.tensor([read]), torch.tensor([int(e.steps[row])])
            token = int(model.head(model(tokens, steps)[0, -1]).argmax())
            read.append(token)
            if tool and token == CALL:
                pending = tool.answer(read[prompt:])
        if read[-1] == END:
            break
    return tuple(read[prompt:])


def test_an_answer_without_an_end_is_no_answer():
    _, form, script, e, problems = encoded("factorial", "direct", [["5"]])
    own = [script.vocabulary.index(c, len(MARKS)) for c in "120"]
    endless = generate(Scripted([*own, own[-1]], len(script.vocabulary)), form, script, e, problems.x)[0]
    assert endless.answer is None
    assert not endless.correct
    ended = generate(Scripted([*own, END], len(script.vocabulary)), form, script, e, problems.x)[0]
    assert ended.correct


def test_a_trace_and_a_tool_need_a_task_that_has_them():
    with pytest.raises(UserError, match="has no trace"):
        encoded("modular", "trace")
    with pytest.raises(UserError, match="formats that fit"):
        encoded("multiplication", "tool")
    with pytest.raises(UserError, match="nothing to round"):
        encoded("iterated-product", "trace:arithmetic=rounded")
    with pytest.raises(UserError, match="reversed digits need plain numbers"):
        encoded("factorial", "direct:notation=reversed")


def test_pairs_are_written_as_they_stand_with_marks_that_no_text_can_forge(tmp_path):
    file = tmp_path / "p.csv"
    file.write_text(
        "problem,answer,trace\n1=#→;,a<end>,so # it = is\n" + "".join(f"q{i},r{i},t{i}\n" for i in range(30))
    )
    for form in ("direct", "trace", "filler"):
        _, f, script, e, problems = encoded(f"pairs:{file}", form, train=20)
        assert (e.tokens == EQUALS).sum() == len(e)
        written = generate(Parrot(e, len(script.vocabulary)), f, script, e, problems.x)
        assert all(o.correct for o in written)
