"""How weights move."""

from crevasse.rules.base import BaseRule, Rule, State, Step, Update
from crevasse.rules.layout import Layout, Part, Window
from crevasse.rules.oracle import Ask, Asking, Cost, Oracle, Seen, Weights, answered
from crevasse.spec import Entry, Table

RULES: Table[Rule] = Table(
    "rule",
    {
        "sgd": Entry("crevasse.rules.sgd:Sgd", "gradient descent"),
        "momentum": Entry("crevasse.rules.sgd:Momentum", "gradient descent with momentum, the heavy ball"),
        "nesterov": Entry("crevasse.rules.sgd:Nesterov", "momentum that looks where it leads"),
        "adamw": Entry("crevasse.rules.adamw:AdamW", "Adam with decoupled weight decay"),
        "lion": Entry("crevasse.rules.lion:Lion", "the sign of an interpolated momentum"),
        "muon": Entry("crevasse.rules.muon:Muon", "momentum with all singular values near one; adamw for the rest"),
        "clip": Entry("crevasse.rules.clip:Clip", "gradients of bounded length"),
        "perp": Entry("crevasse.rules.perp:Perp", "gradients at a right angle to the weights (StableMax as an option)"),
        "egd": Entry("crevasse.rules.egd:Egd", "matrix gradients with all singular values equal"),
        "row-clip": Entry("crevasse.rules.row_clip:RowClip", "weights whose rows stay short"),
        "sphere": Entry("crevasse.rules.sphere:Sphere", "weights that keep the norms of their start"),
        "grokfast": Entry("crevasse.rules.grokfast:Grokfast", "the slow part of gradients amplified by a running mean"),
        "grokfast-ma": Entry("crevasse.rules.grokfast:GrokfastMa", "the same by the mean of a window of gradients"),
        "rm3": Entry("crevasse.rules.median:Rm3", "the entrywise median of the last three gradients"),
        "ema": Entry("crevasse.rules.ema:Ema", "judged by a running average of the weights"),
        "lookahead": Entry("crevasse.rules.lookahead:Lookahead", "slow weights that follow fast ones"),
        "swa": Entry("crevasse.rules.swa:Swa", "judged by the mean of the late weights"),
        "gaf": Entry("crevasse.rules.gaf:Gaf", "the mean of the microbatch gradients that agree"),
        "gaf-sign": Entry("crevasse.rules.gaf:GafSign", "entries whose sign all microbatches share (the thesis)"),
        "and-mask": Entry("crevasse.rules.and_mask:AndMask", "entries whose sign most microbatches share"),
        "median": Entry("crevasse.rules.median:Median", "the entrywise median of microbatch gradients (M3)"),
        "snr": Entry("crevasse.rules.snr:Snr", "rows shrunk where microbatches differ more than they share"),
        "pcgrad": Entry("crevasse.rules.pcgrad:PcGrad", "microbatch gradients without their conflicts"),
        "upgrad": Entry("crevasse.rules.upgrad:UpGrad", "a gradient that conflicts with no microbatch"),
        "sam": Entry("crevasse.rules.sam:Sam", "the gradient of the worst point near by"),
        "asam": Entry("crevasse.rules.sam:Asam", "the same, near by in units of each weight"),
        "sgld": Entry("crevasse.rules.sgld:Sgld", "gradient descent with noise at a temperature (Langevin)"),
        "label-noise": Entry("crevasse.rules.label_noise:LabelNoise", "a share of the batch has others' labels"),
        "weight-noise": Entry("crevasse.rules.weight_noise:WeightNoise", "the gradient at weights that were shaken"),
        "l1": Entry("crevasse.rules.l1:L1", "weights that are drawn to zero and stay there"),
        "delayed-compression": Entry(
            "crevasse.rules.delayed_compression:DelayedCompression",
            "a pull to small weights once training is done",
        ),
        "quantise": Entry("crevasse.rules.quantise:Quantise", "weights rounded now and then, and trained on"),
        "reweight": Entry("crevasse.rules.reweight:Reweight", "parts of the batch count as they help the steer set"),
        "bilevel": Entry(
            "crevasse.rules.bilevel:Bilevel", "also descend where a step on other folds leads (MLDG, MAML)"
        ),
        "matching": Entry("crevasse.rules.matching:Matching", "bend the gradient toward that of the steer set (Fish)"),
        "restarts": Entry("crevasse.rules.restarts:Restarts", "several runs, of which the steer set picks one"),
        "es": Entry("crevasse.rules.es:Es", "evolution strategies of low rank, without a backward pass"),
        "mezo": Entry("crevasse.rules.mezo:Mezo", "one random direction and two losses (SPSA)"),
        "crossfit": Entry("crevasse.rules.crossfit:Crossfit", "of a step what also helps folds that had no part in it"),
        "scope": Entry("crevasse.rules.scope:Scope", "of each fold, scope by scope, what also teaches the others"),
        "jump": Entry("crevasse.rules.jump:Jump", "jumps to simpler weights, kept where the description shortens"),
        "starve": Entry(
            "crevasse.rules.starve:Starve", "capacity withheld until the steer loss falls, then given back"
        ),
        "race": Entry("crevasse.rules.race:Race", "narrow models raced, kept where the steer set gains, and grown"),
        "invariant": Entry(
            "crevasse.rules.invariant:Invariant", "examples moved along invariances that they show themselves"
        ),
        "file": Entry("crevasse.rules.from_file:FromFile", "a rule of your own: file:my_rule.py"),
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
    "Window",
    "answered",
]
