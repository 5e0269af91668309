"""How weights move."""

from crevasse.rules.base import BaseRule, Rule, State, Update
from crevasse.rules.oracle import Ask, Asking, Cost, Oracle, Seen, Weights, answered
from crevasse.spec import Entry, Table

RULES: Table[Rule] = Table(
    "rule",
    {
        "sgd": Entry("crevasse.rules.sgd:Sgd", "gradient descent with momentum"),
        "adamw": Entry("crevasse.rules.adamw:AdamW", "Adam with decoupled weight decay"),
        "gaf": Entry("crevasse.rules.gaf:Gaf", "the mean of the microbatch gradients that agree"),
        "gaf-sign": Entry("crevasse.rules.gaf:GafSign", "entries whose sign all microbatches share (the thesis)"),
    },
)

__all__ = [
    "RULES",
    "Ask",
    "Asking",
    "BaseRule",
    "Cost",
    "Oracle",
    "Rule",
    "Seen",
    "State",
    "Update",
    "Weights",
    "answered",
]
