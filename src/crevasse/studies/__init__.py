"""Questions, each answered by a grid of trials."""

from crevasse.spec import Entry, Table
from crevasse.studies.base import BUDGETS, EVIDENCE, REPORT, VERDICT, Study, decide, read_evidence, run_study

STUDIES: Table[Study] = Table(
    "study",
    {
        "rules": Entry(
            "crevasse.studies.rules:RulesStudy",
            "which update rule finds the rule: the leaderboard (rules:my_rule.py adds yours)",
        ),
        "claims": Entry(
            "crevasse.studies.claims.study:ClaimsStudy",
            "which sentences of the thesis stand: each an experiment with a verdict (claims:only=C3+C6)",
        ),
        "factorial": Entry(
            "crevasse.studies.factorial:FactorialStudy",
            "which learners find the rule of n! and of products, and which memorise the answers",
        ),
        "lessons": Entry(
            "crevasse.studies.lessons.study:LessonsStudy",
            "how far one example should reach, in lives whose cause is known (lessons:world=my_world.toml)",
        ),
        "llm-factorial": Entry(
            "crevasse.studies.llm_factorial:LlmFactorialStudy",
            "n! on a pretrained language model: answer only, trace, calculator (llm-factorial:MODEL)",
        ),
        "published": Entry(
            "crevasse.studies.published.study:PublishedStudy",
            "results of the literature repeated, the paper's number beside ours (published:only=parity+reversed)",
        ),
        "starvation": Entry(
            "crevasse.studies.starvation:StarvationStudy",
            "must capacity be withheld for the rule to be found: AdamW, five ways to starve, races of narrow models",
        ),
    },
)

__all__ = [
    "BUDGETS",
    "EVIDENCE",
    "REPORT",
    "STUDIES",
    "VERDICT",
    "Study",
    "decide",
    "read_evidence",
    "run_study",
]
