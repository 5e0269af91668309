"""The lockstep meter for any training loop: two losses now and then, a verdict and a picture at the end.

A pretrained model has paid for most of the way from the uniform guess before fine-tuning begins, so progress is
counted from the first reading, each loss against its own: s = 1 − train/train₀ and h = 1 − held-out/held-out₀. Where
training starts from nothing, `uniform` counts both from the loss of the uniform guess, as the laboratory does.

The verdict rests on two numbers, because each alone can be fooled. The score is the mean of h over the way that s
went, so it forgives a held-out loss that turns near the end; `carried`, what is left of h at the end over s_max, does
not see how the way went. Both ≥ LEARNS: it learns. Both ≤ MEMORISES: it memorises. Else: in part. Held-out that
follows over a share r of the way and then stays scores 2r − r² and carries r: with .7 and .3 it must follow over 70%
of the way to count as learning, and memorising means that it followed over less than 17%. Below s_max = LEARNED
nothing is said: the first that any training learns is the look of the answers, and that always carries over. A run
that memorises at its end does not count as learning, however far it came before.
"""

import csv
import io
from dataclasses import dataclass, field
from math import isfinite, sqrt
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crevasse.errors import UserError
from crevasse.probes import LEARNED, lockstep, progress
from crevasse.store import make_folder, write_atomically

LEARNS, MEMORISES = 0.7, 0.3
#: Readings that must all lie above the lowest held-out loss before it is said to have turned.
TURNED = 3
#: A rise counts from so many standard deviations of a reading, and from this share of what progress is counted from.
NOISE, RISE = 3.0, 0.01

Finding = Literal["learns", "in part", "memorises", "too little to tell"]


class Reading(NamedTuple):
    """Both losses at one moment, in nats a token."""

    step: int
    train_loss: float
    held_out_loss: float


@dataclass(frozen=True)
class MeterResult:
    """What the readings say together."""

    finding: Finding
    verdict: str  # one sentence or two, for a person
    score: float | None  # of lockstep; None where training loss never fell
    s_max: float  # how far training loss fell, as a share
    carried: float | None  # h at the end over s_max: what of it carries over
    memorising: float | None  # share of the fall of training loss bought while held-out loss rose
    best_step: int | None  # where held-out loss was lowest


@dataclass
class LockstepMeter:
    """Keeps the readings of one run. uniform: the loss of the uniform guess, for training from nothing."""

    uniform: float | None = None
    readings: list[Reading] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.uniform is not None and not (isfinite(self.uniform) and self.uniform > 0):
            raise UserError(f"uniform must be a positive loss, not {self.uniform}")

    def note(self, step: int, train_loss: float, held_out_loss: float) -> None:
        """Take a reading of both losses, each over the same rows as before. A loss may be NaN or infinite."""
        if self.readings and step <= self.readings[-1].step:
            raise UserError(f"a reading of step {step} after one of step {self.readings[-1].step}: steps must rise")
        self.readings.append(Reading(int(step), float(train_loss), float(held_out_loss)))

    def progress(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """s and h of each reading; NaN from the first loss on that is not finite. (reading,) each"""
        train, held_out, unit = self._curves()
        return progress(train, unit), progress(held_out, unit)

    def result(self) -> MeterResult:
        """The verdict on all readings so far. Raises UserError before the second reading."""
        if len(self.readings) < 2:
            raise UserError(f"a verdict needs at least 2 readings; there are {len(self.readings)}")
        train, held_out, unit = self._curves()
        together = lockstep(train, held_out, unit)
        h = progress(held_out, unit)
        h = h[np.isfinite(h)]
        carried = float(h[-1]) / together.s_max if together.s_max > 0 else None
        best = self.readings[int(np.argmax(h))].step if len(h) else None
        finding = _finding(together.score, together.s_max, carried)
        if finding == "learns" and self.memorising_now:
            finding = "in part"
        verdict = self._sentence(finding, together.score, together.s_max, carried, best)
        broken = next((r.step for r in self.readings if not all(map(isfinite, r[1:]))), None)
        if broken is not None:
            verdict += f" From step {broken:,} on a loss was no longer a number: only what came before counts."
        return MeterResult(finding, verdict, together.score, together.s_max, carried, together.memorising, best)

    def _sentence(
        self, finding: Finding, score: float | None, s_max: float, carried: float | None, best: int | None
    ) -> str:
        """The verdict for a person."""
        start = "its start" if self.uniform is None else "the uniform guess"
        if score is None or carried is None:
            return f"Nothing can be told: training loss never fell below {start}."
        fell = f"training loss fell {_percent(s_max)} below {start}"
        if finding == "too little to tell":
            lags = "; so far held-out loss does not follow" if score <= MEMORISES else ""
            return f"Too little to tell: {fell}, and up to {_percent(LEARNED)} almost anything carries over{lags}."
        if carried <= 0:
            went = "held-out loss ended " + ("higher than it began" if self.uniform is None else f"above {start}")
        else:
            went = f"{_percent(min(carried, 1))} of that carried over to held-out rows"
        if finding == "learns":
            return f"It learns: {fell}, and {went}."
        if finding == "memorises":
            return f"It memorises: {fell}, but {'only ' if carried > 0 else ''}{went}."
        if self.memorising_now:
            return f"In part: {fell}, and {went}; since step {best:,} held-out loss rises."
        if best == self.readings[-1].step:
            return f"In part: {fell}, and {went}, but late: held-out loss lagged on the way."
        return f"In part: {fell}, and {went}; held-out loss was lowest at step {best:,}."

    @property
    def memorising_now(self) -> bool:
        """Has progress turned into memory? Held-out loss has stayed above its lowest by more than noise for the last
        few readings, while training loss went on falling."""
        train, held_out, unit = self._curves()
        if len(self.readings) < TURNED + 1 or not (np.isfinite(train).all() and np.isfinite(held_out).all()):
            return False
        low = int(np.argmin(held_out))
        # Of a smooth curve second differences are nearly all noise, √6 times that of one reading.
        wobble = np.abs(np.diff(held_out, 2))
        noise = float(np.median(wobble)) / 0.6745 / sqrt(6)
        limit = held_out[low] + max(NOISE * noise, RISE * unit)
        return bool((held_out[-TURNED:] > limit).all() and train[-1] < min(train[low], train[-TURNED - 1]))

    def write(self, path: str | Path) -> Path:
        """The readings as CSV: step, train_loss, held_out_loss, s, h. What is not a number stays empty."""
        s, h = self.progress()
        out = io.StringIO()
        lines = csv.writer(out, lineterminator="\n")
        lines.writerow([*Reading._fields, "s", "h"])
        for (step, *losses), *shares in zip(self.readings, s.tolist(), h.tolist(), strict=True):
            lines.writerow([step, *(f"{v:.8g}" if isfinite(v) else "" for v in (*losses, *shares))])
        return _write(Path(path), out.getvalue().encode())

    def picture(self, path: str | Path) -> Path:
        """Verdict and curves as one HTML file that opens without a network."""
        from crevasse.integrations.picture import page  # plotly is large

        s, h = self.progress()
        return _write(Path(path), page(self.readings, s, h, self.result(), self.uniform).encode())

    def _curves(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Train, held-out and the loss that both are counted from: each its own first reading is 1, or `uniform`.

        All is NaN from the first loss on that is not finite, so that nothing after it counts.
        """
        losses = np.array([r[1:] for r in self.readings], dtype=np.float64).reshape(-1, 2)
        losses[np.cumsum(~np.isfinite(losses).all(1)) > 0] = np.nan
        if self.uniform is not None:
            return losses[:, 0], losses[:, 1], self.uniform
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = losses / losses[:1]
        shares[~np.isfinite(shares).all(1)] = np.nan  # a first loss of 0: nothing can be told
        return shares[:, 0], shares[:, 1], 1.0


def _finding(score: float | None, s_max: float, carried: float | None) -> Finding:
    if score is None or carried is None or s_max < LEARNED:
        return "too little to tell"
    if min(score, carried) >= LEARNS:
        return "learns"
    return "memorises" if max(score, carried) <= MEMORISES else "in part"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _write(path: Path, data: bytes) -> Path:
    make_folder(path.parent)
    write_atomically(path, data)
    return path
