"""The end of a trial: the test splits are opened, once, and the trained model answers."""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np

from crevasse.config import TrialConfig
from crevasse.documents import Data, head
from crevasse.formats import Encoded
from crevasse.formats.faults import Fault, first_fault
from crevasse.formats.generate import Output, generate
from crevasse.models import Model
from crevasse.tasks import BLANK, Problems
from crevasse.tasks.baselines import non_learner_scores

#: Outputs kept of each split, right ones and wrong ones.
SAMPLES = 5
#: Problems of a split whose rule score is read.
LINKED = 200


class Judge:
    """Asks a model all problems of a config and says what its answers are worth."""

    def __init__(self, config: TrialConfig, data: Data, model: Model) -> None:
        self.config, self.data, self.model = config, data, model
        #: What the model answered to each problem that it was asked, as numbers.
        self._answers: dict[tuple[int, ...], list[int] | None] = {}

    def judge(self) -> dict[str, Any]:
        """Exact match, ceilings, non-learners, rule scores, faults and sample outputs, split by split."""
        data = self.data
        found: dict[str, Any] = _nothing()
        for name in ("train", *data.tests):
            encoded, problems = data.split(name)
            if name == "train":
                limit = self.config.held_out
                encoded, problems = head(encoded, limit), problems.take(np.arange(len(problems))[:limit])
            written = self._ask(encoded, problems)
            broken = [first_fault(data.script, encoded, i, o) for i, o in enumerate(written)]
            found["faults"][name] = dict(sorted(Counter(f.kind for f in broken if f is not None).items()))
            found["outputs"][name] = self._samples(encoded, written, broken)
            found["unreadable_calls"] += sum(len(o.unreadable) for o in written)
            found["ceiling"][name] = data.form.ceiling(data.script, problems)
            exact = float(np.mean([o.correct for o in written]))
            if name == "train":
                found["train"] = exact
                continue
            found["splits"][name] = exact
            scores = non_learner_scores(data.splits.train, problems)
            if self.config.task.kind == "text":
                scores.pop("nearest")  # it would compare row numbers of a file
            found["non_learners"][name] = scores
        found["rule_score"] = {name: self._rule_score(data.splits.tests[name]) for name in data.tests}
        return found

    def answers(self, split: str) -> list[list[int] | None]:
        """What the model answers to each problem of a split, as numbers; None for what is no answer."""
        encoded, problems = self.data.split(split)
        self._ask(encoded, problems)
        return [self._answers[key] for key in _keys(problems.x)]

    def _ask(self, encoded: Encoded, problems: Problems) -> list[Output]:
        data = self.data
        written = generate(self.model, data.form, data.script, encoded, problems.x)
        for key, output in zip(_keys(problems.x), written, strict=True):
            self._answers[key] = None if output.answer is None else data.script.numbers(output.answer)
        return written

    def _samples(self, encoded: Encoded, written: list[Output], broken: list[Fault | None]) -> list[dict[str, Any]]:
        """The first right and the first wrong outputs of a split, as text."""
        right = [i for i, o in enumerate(written) if o.correct][:SAMPLES]
        wrong = [i for i, o in enumerate(written) if not o.correct][:SAMPLES]
        text, skip = self.data.script.text, len(self.data.preamble)
        return [
            {
                "problem": text(encoded.tokens[i, skip : encoded.prompt[i]].tolist()),
                "written": text(written[i].tokens),
                "answer": None if (answer := written[i].answer) is None else text(answer),
                "expected": text(encoded.answers[i].tolist()),
                "correct": written[i].correct,
                "unreadable": list(written[i].unreadable),
                "fault": None if (fault := broken[i]) is None else dataclasses.asdict(fault),
            }
            for i in (*right, *wrong)
        ]

    def _rule_score(self, problems: Problems) -> float | None:
        """Share of the learner's outputs over consecutive problems that satisfy the recursion; None without one."""
        task = self.config.task
        links = task.consecutive(problems.x[:LINKED])
        if links is None:
            return None
        asked = {key: x for xs in links.problems for key, x in zip(_keys(xs), xs, strict=True)}
        missing = [x for key, x in asked.items() if key not in self._answers]
        if missing:
            x = np.stack(missing)
            some = Problems(x, task.solve(x))
            self._ask(self.data.encode(some), some)
        read = [[self._answers[key] for key in _keys(x)] for x in links.problems]
        width = task.solve(links.problems[0][:1]).answers.shape[1]
        whole = [all(v is not None and len(v) == width for v in row) for row in zip(*read, strict=True)]
        if not any(whole):
            return 0.0
        values = [np.array([v for v, ok in zip(r, whole, strict=True) if ok], dtype=object) for r in read]
        kept = dataclasses.replace(links, problems=tuple(x[np.array(whole)] for x in links.problems))
        return float(task.obeys(kept, values).sum() / len(whole))


def _nothing() -> dict[str, Any]:
    """What is known of a trial that is not judged: it diverged."""
    return {"train": None, "splits": {}, "rule_score": {}, "ceiling": {}, "non_learners": {}, "outputs": {},
            "faults": {}, "unreadable_calls": 0}  # fmt: skip


def judge(config: TrialConfig, data: Data, model: Model | None) -> dict[str, Any]:
    """What stands in a result about answers. model: None for a trial that ended without one worth asking."""
    return _nothing() if model is None else Judge(config, data, model).judge()


def _keys(x: Any) -> list[tuple[int, ...]]:
    """Problems as what a dictionary takes, without what fills rows up."""
    return [tuple(v for v in row if v != BLANK) for row in x.tolist()]
