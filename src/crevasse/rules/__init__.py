"""How weights move."""

from crevasse.rules.base import BaseRule, Rule, State, Step, Update
from crevasse.rules.layout import Layout, Part
from crevasse.rules.oracle import Ask, Asking, Cost, Oracle, Seen, Weights, answered
from crevasse.spec import Entry, Table

RULES: Table[Rule] = Table(
    "rule",
    {
        "sgd": Entry("crevasse.rules.sgd:Sgd", "gradient descent"),
        "momentum": Entry("crevasse.rules.sgd:Momentum", "gradient descent with momentum, the heavy ball"),
        "nesterov": Entry("crevasse.rules.sgd:Nesterov", "momentum that looks where it leads"),
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
    "Layout",
    "Oracle",
    "Part",
    "Rule",
    "Seen",
    "State",
    "Step",
    "Update",
    "Weights",
    "answered",
]
