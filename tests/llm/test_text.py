"""Documents as text for a tokenizer: what stands in them, what carries loss, and where a trace breaks."""

import numpy as np
import pytest
import torch
from tiny import make_tiny

from crevasse.errors import UserError
from crevasse.formats import FORMATS
from crevasse.formats.faults import first_fault
from crevasse.formats.generate import Output, generate
from crevasse.formats.trace import Calculator
from crevasse.models.pretrained import HubTokenizer
from crevasse.tasks import TASKS, Problems, make_splits, parse_problem, parse_task


def documents(folder, task_text, form_text, rows):
    task, form = parse_task(task_text), FORMATS.parse(form_text)
    script = form.script(task, HubTokenizer(folder))
    x = np.concatenate([parse_problem(task, r) for r in rows])
    problems = Problems(x, task.solve(x))
    return form, script, form.encode(script, problems), problems


@pytest.mark.parametrize(
    ("task", "form", "problem", "document", "own"),
    [
        ("factorial", "direct", ["10"], "10!=|3.6288e+06<end>", "3.6288e+06<end>"),
        ("factorial", "trace", ["4"], "4!=|4*3=12\n12*2=24\n24*1=24\n####24<end>", None),
        ("factorial", "tool", ["3"], "3!=|3*2<multiply>6\n6*1<multiply>6\n####6<end>",
         "3*2<multiply>6*1<multiply>####6<end>"),
        ("factorial", "tool:steps=chain", ["4"], "4!=4|*3<multiply>12*2<multiply>24*1<multiply>24####24<end>",
         "*3<multiply>*2<multiply>*1<multiply>####24<end>"),
        ("sum", "direct:pad=3", ["12"], "012+...+001=|078<end>", "078<end>"),
        ("factorial", "trace:steps=chain", ["4"], "4!=4|*3=12*2=24*1=24####24<end>", None),
        ("factorial", "tool:steps=chain,pad=2", ["4"],
         "04!=04|*03<multiply>12*02<multiply>24*01<multiply>24####24<end>",
         "*03<multiply>*02<multiply>*01<multiply>####24<end>"),
        ("sum", "tool", ["3"], "3+...+1=|3+2<add>5\n5+1<add>6\n####6<end>", "3+2<add>5+1<add>####6<end>"),
        ("fibonacci", "trace:steps=states", ["3"], "F(3)=|1,1\n1,2\n2,3\n####2<end>", None),
        ("iterated-product", "trace", ["x=3,5,12"], "3*5*12 mod 13=|3*5=2\n2*12=11\n####11<end>", None),
        ("words:group=S3,T=2,gap=,beyond=", "direct", ["x=1,2"], "words x=1,2=|", None),
        ("addition", "direct", ["a=95", "b=7"], "addition a=95 b=7=|102<end>", "102<end>"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("merge_digits", [False, True])
def test_a_document_reads_as_written_whatever_the_tokenizer(tiny, task, form, problem, document, own, merge_digits):
    _, script, e, problems = documents(tiny(merge_digits=merge_digits), task, form, [problem])
    length, prompt = int(e.lengths[0]), int(e.prompt[0])
    tokens = e.tokens[0, :length]
    text = f"{script.text(tokens[:prompt])}|{script.text(tokens[prompt:])}"
    assert text.startswith(document)
    assert not e.loss[0, :prompt].any() and not e.loss[0, length:].any()
    said = script.text(tokens[e.loss[0, :length]])
    assert said == (own or script.text(tokens[prompt:]))
    assert script.numbers(e.answers[0].tolist()) == pytest.approx(
        [int(v) for v in problems.solution.answers[0]], rel=1e-6
    )


def test_instructions_and_solved_problems_stand_before_the_problem_and_carry_no_loss(tiny):
    task, form = parse_task("factorial"), FORMATS.parse("direct:instructions=true,shots=3")
    script, splits = form.script(task, HubTokenizer(tiny())), make_splits(parse_task("factorial"))
    preamble = form.preamble(script, splits.train)
    assert script.text(preamble) == f"{task.sentence}\n1!=1<end>7!=5040<end>19!=1.216451e+17<end>"
    e = form.encode(script, splits.tests["interpolation"], preamble)
    assert (e.tokens[:, : len(preamble)] == preamble).all()
    assert not e.loss[:, : len(preamble)].any()
    assert (e.prompt > len(preamble)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in TASKS if n != "pairs"])
@pytest.mark.parametrize("form", ["direct", "trace", "tool"])
def test_every_task_can_be_written_as_text_or_says_why_not(tiny, name, form):
    task, f = parse_task(name), FORMATS.parse(form)
    script = f.script(task, HubTokenizer(tiny()))
    problems = make_splits(task, held_out=20, train=20 if "R" in task.splits else None).train
    problems = problems.take(np.arange(min(20, len(problems))))
    if (form != "direct" and problems.solution.states is None) or (form == "tool" and task.call_widths is None):
        with pytest.raises(UserError, match=r"no (trace|steps)"):
            f.encode(script, problems)
        return
    e = f.encode(script, problems)
    assert (e.loss.sum(1) > 0).all()
    assert len({tuple(r[:p]) for r, p in zip(e.tokens.tolist(), e.prompt, strict=True)}) == len(problems)


def test_the_users_own_text_is_written_as_it_stands(tiny, tmp_path):
    file = tmp_path / "mine.jsonl"
    lines = [
        f'{{"problem": "Who lives at {i}?", "trace": "so we look", "answer": "Ann {i} \\u00e9"}}' for i in range(30)
    ]
    file.write_text("\n".join(lines))
    task, form = parse_task(f"pairs:{file}"), FORMATS.parse("trace")
    script = form.script(task, HubTokenizer(tiny()))
    problems = Problems(task.every(task.train_sizes), task.solve(task.every(task.train_sizes)))
    e = form.encode(script, problems)
    assert script.text(e.tokens[3, : e.lengths[3]]) == "Who lives at 3?\nso we look\n####Ann 3 é<end>"


class Plays:
    """A model that writes the given tokens, whatever it reads."""

    def __init__(self, own, size):
        self.own, self.size = own, size

    def cache(self):
        return [0]

    def keep(self, cache, rows):
        return cache

    def next_logits(self, tokens, steps, cache):
        logits = torch.zeros(len(tokens), self.size)
        logits[:, self.own[min(cache[0], len(self.own) - 1)]] = 1
        cache[0] += 1
        return logits


def test_the_same_answer_in_other_tokens_is_the_same_answer(tiny):
    form, script, e, problems = documents(tiny(merge_digits=True), "factorial", "direct", [["5"]])
    digit_by_digit = [t for c in " 120" for t in HubTokenizer(tiny(merge_digits=True)).encode(c)]
    assert digit_by_digit[1:] != e.answers[0].tolist()
    written = generate(Plays([*digit_by_digit, script.marks[-1]], script.size), form, script, e, problems.x)[0]
    assert written.correct
    wrong = generate(Plays([*digit_by_digit[:-1], script.marks[-1]], script.size), form, script, e, problems.x)[0]
    assert not wrong.correct


@pytest.mark.parametrize("form", ["tool", "tool:steps=chain", "tool:steps=chain,pad=3"])
def test_the_calculator_follows_both_ways_of_writing_and_keeps_its_digits(tiny, form):
    f, script, e, problems = documents(tiny(), "factorial", form, [["24"]])
    calculator, own = Calculator(script, problems.x[0], f), []
    call = script.marks[2]
    document = e.tokens[0, e.prompt[0] : e.lengths[0]].tolist()
    while len(own) < len(document):
        own.append(document[len(own)])
        if own[-1] == call:
            own += calculator.answer(own)
    assert own == document
    assert calculator.unreadable == []


@pytest.mark.parametrize(
    ("form", "written", "kind"),
    [
        ("tool", "4*3<multiply>12\n12*2<multiply>24\n24*1<multiply>24\n####24<end>", None),
        ("tool", "5*3<multiply>15\n", "start"),
        ("tool", "4*3<multiply>12\n13*2<multiply>", "copying"),
        ("tool", "4*3<multiply>12\n12*1<multiply>", "operand"),
        ("trace", "4*3=12\n12*2=25\n", "result"),
        ("trace", "4*3=12\n12*2=24\n####24<end>", "stopping"),
        ("trace", "4*3=12\n12*2=24\n24*1=24\n24*0=0\n", "stopping"),
        ("trace", "4*3=12\n12*2=24\n24*1=24\n####2<end>", "answer"),
        ("trace", "4*3=12\n12*2=24\n24*1=24\n####240<end>", "answer"),
        ("trace", "4*3=12\n12+2=", "form"),
        ("tool:steps=chain", "*3<multiply>12*2<multiply>24####24<end>", "stopping"),
        ("tool:steps=chain", "*3<multiply>12*2<multiply>24*1<multiply>24*0<multiply>", "stopping"),
        ("tool:steps=chain", "*2<multiply>8", "operand"),
        ("direct", "25<end>", "answer"),
        ("direct", "24<end>", None),
        ("trace", "<end>", "stopping"),
    ],
)  # fmt: skip
def test_the_first_fault_says_what_broke(tiny, form, written, kind):
    _, script, e, _ = documents(tiny(), "factorial", form, [["4"]])
    tokenizer = HubTokenizer(tiny())
    for mark in script.marks[:-1]:
        tokenizer.token(script.text([mark]))
    body, end, _ = written.partition("<end>")
    own = tokenizer.encode(body) + ([tokenizer.end] if end else [])
    fault = first_fault(script, e, 0, Output(tuple(own), None, False))
    assert (fault and fault.kind) == kind


def test_text_and_what_goes_with_it_is_refused_where_nobody_reads_it(tiny):
    task, reads = parse_task("factorial"), HubTokenizer(tiny())
    for text, needle in (("direct:notation=text", "pretrained"), ("direct:shots=2", "pretrained"),
                         ("tool:instructions=true", "pretrained")):  # fmt: skip
        with pytest.raises(UserError, match=needle):
            FORMATS.parse(text).script(task)
    with pytest.raises(UserError, match="reads text, not digits"):
        FORMATS.parse("direct:notation=digits").script(task, reads)
    form, parity = FORMATS.parse("direct:instructions=true"), parse_task("parity")
    with pytest.raises(UserError, match="no instructions"):
        form.preamble(form.script(parity, reads), make_splits(parity).train)
    form = FORMATS.parse("direct:shots=15")
    with pytest.raises(UserError, match="15 shots"):
        form.preamble(form.script(task, reads), make_splits(task).train)
    with pytest.raises(UserError, match="take more than the last result"):
        documents(tiny(), "fibonacci", "tool:steps=chain", [["n=4"]])
    form, product = FORMATS.parse("tool:steps=chain"), parse_task("iterated-product")
    with pytest.raises(UserError, match="residues have no operator"):
        form.encode(form.script(product), make_splits(product, 20, held_out=5).train)


def test_a_mark_that_no_token_reads_as_gets_one_of_its_own(tmp_path):
    reads = HubTokenizer(make_tiny(tmp_path / "m"))
    before = reads.size
    call = reads.token("<multiply>")
    assert reads.encode("2*3<multiply>6")[3] == call
    assert reads.size == before + 1
    assert reads.decode(reads.pieces[call]) == "<multiply>"
    assert reads.token("=") not in reads.pieces
