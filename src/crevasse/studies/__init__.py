"""Questions, each answered by a grid of trials."""

from crevasse.spec import Entry, Table
from crevasse.studies.base import BUDGETS, EVIDENCE, REPORT, VERDICT, Study, decide, read_evidence, run_study

STUDIES: Table[Study] = Table(
    "study",
    {
        "factorial": Entry(
            "crevasse.studies.factorial:FactorialStudy",
            "which learners find the rule of n! and of products, and which memorise the answers",
        ),
        "llm-factorial": Entry(
            "crevasse.studies.llm_factorial:LlmFactorialStudy",
            "n! on a pretrained language model: answer only, trace, calculator (llm-factorial:MODEL)",
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
