"""What each rule claims, a row each; `test_every_rule.py` holds it to that. A rule that joins adds a row."""

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
    "gaf": Claim(zero="gaf:threshold=2", trains="gaf:threshold=1.2"),
    "gaf-sign": Claim(),
}
