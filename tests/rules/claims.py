"""What each rule claims, a row each; `test_every_rule.py` holds it to that. A rule that joins adds a row.

`file` claims nothing: it is whatever rule stands in a user's file (`test_from_file.py`).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """forward, backward: rows of a step that go through the model, over those of the batch, in the first step.

    plain, zero: with its strength at nothing (`zero`) it does what `plain` does; None where it is itself plain.
    trains: settings at which it has to descend, where its own defaults are not for such a small problem.
    """

    forward: float = 1.0
    backward: float = 1.0
    zero: str | None = None
    plain: str | None = "adamw"
    trains: str | None = None


CLAIMS: dict[str, Claim] = {
    "sgd": Claim(zero=None),
    "momentum": Claim(zero="momentum:momentum=0", plain="sgd"),
    "nesterov": Claim(zero="nesterov:momentum=0", plain="sgd"),
    "adamw": Claim(zero=None),
    "lion": Claim(zero=None, trains="lion:lr=0.01"),
    "muon": Claim(zero=None),
    "clip": Claim(zero="clip:norm=1e6"),
    "perp": Claim(zero="perp:strength=0"),
    "egd": Claim(zero="egd:strength=0"),
    "row-clip": Claim(zero="row-clip:limit=1e6"),
    "sphere": Claim(zero="sphere:strength=0"),
    "grokfast": Claim(zero="grokfast:lamb=0"),
    "grokfast-ma": Claim(zero="grokfast-ma:lamb=0,window=3", trains="grokfast-ma:window=5"),
    "rm3": Claim(),
    "ema": Claim(zero="ema:decay=0", trains="ema:decay=0.9"),
    "lookahead": Claim(zero="lookahead:alpha=1", trains="lookahead:base.lr=0.01"),
    "swa": Claim(zero="swa:start=1000000", trains="swa:start=40,every=5"),
    "gaf": Claim(zero="gaf:threshold=2", trains="gaf:threshold=1.2"),
    "gaf-sign": Claim(),
    "and-mask": Claim(zero="and-mask:threshold=0"),
    "median": Claim(),
    "snr": Claim(zero="snr:strength=0"),
    "pcgrad": Claim(),
    "upgrad": Claim(),
    "sam": Claim(2, 2, zero="sam:rho=0"),
    "asam": Claim(2, 2, zero="asam:rho=0"),
    "sgld": Claim(zero="sgld:temperature=0", plain="sgd"),
    "label-noise": Claim(zero="label-noise:p=0"),
    "weight-noise": Claim(zero="weight-noise:sigma=0"),
    "l1": Claim(zero="l1:strength=0"),
    "delayed-compression": Claim(zero="delayed-compression:strength=0,below=1e6"),
    "quantise": Claim(zero="quantise:bits=32,every=1", trains="quantise:every=20"),
    "reweight": Claim(2, 2, zero="reweight:strength=0"),
    "bilevel": Claim(2, 2, zero="bilevel:beta=0"),
    "matching": Claim(6, 6, zero="matching:strength=0"),
    "restarts": Claim(zero="restarts:copies=1,each=2", trains="restarts:copies=3,each=15"),
    "es": Claim(16, 0, trains="es:base.lr=0.03"),
    "mezo": Claim(2, 0, trains="mezo:base.lr=0.02"),
    "crossfit": Claim(zero="crossfit:strength=0"),
    "scope": Claim(zero="scope:strength=0"),
    "jump": Claim(zero="jump:every=0", trains="jump:every=15,repair=5"),
    "starve": Claim(2, 1, zero="starve:strength=0", trains="starve:strength=0.02,until=0.2,feed=5"),
    # One of five hidden units: 13 of 53 weights, in 256 models, and once for the model that knows nothing.
    "race": Claim(257 * 13 / 53, 256 * 13 / 53, plain=None, trains="race:cells=8,each=20,thin=2.5,refit=10"),
    "invariant": Claim(zero="invariant:alpha=0"),
}
