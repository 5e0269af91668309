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
whose held-out loss rises at its end does not count as learning, however far it came before.

During training two more figures say where it stands. `memory` is the share of all progress so far that is memory,
1 − carried. `memorising_now` looks at the latest 15% of the progress alone, and at how much of that carries over.

What readings cost is counted, not timed: `pace` says how often a loop can be read.
"""

import csv
import io
from dataclasses import dataclass, field
from math import ceil, isfinite, sqrt
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crevasse.errors import UserError
from crevasse.probes import LEARNED, lockstep, progress
from crevasse.store import make_folder, write_atomically

LEARNS, MEMORISES = 0.7, 0.3
#: Below this fall of training loss no share of it is told: one small number over another.
TOLD = 0.05
#: What is learnt now is the latest share of all progress; its end is the mean of the last TURNED readings.
LATELY = 0.15
#: Readings that stand for the present, and that must all lie above the lowest held-out loss before it has turned.
TURNED = 3
#: What counts must be so many standard deviations away; a rise also this share of what progress is counted from.
NOISE, RISE = 3.0, 0.01
#: What readings may cost as counted, as a share of training: 5% less one for what is not counted (modes, buffers and
#: generators that are put back). And how many are made at least and at most.
COST = 0.04
FEWEST, MOST = 8, 60
#: Rows of each side that are read at the least and at the most, where the user does not say.
FEW_ROWS, MANY_ROWS = 64, 256

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
    memory: float | None = None  # share of the progress that is memory, 0 to 1; None below TOLD


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
        if finding == "learns" and self._rises:
            finding = "in part"
        verdict = self._sentence(finding, together.score, together.s_max, carried, best)
        broken = next((r.step for r in self.readings if not all(map(isfinite, r[1:]))), None)
        if broken is not None:
            verdict += f" From step {broken:,} on a loss was no longer a number: only what came before counts."
        return MeterResult(
            finding, verdict, together.score, together.s_max, carried, together.memorising, best, self.memory
        )

    def _sentence(
        self, finding: Finding, score: float | None, s_max: float, carried: float | None, best: int | None
    ) -> str:
        """The verdict for a person."""
        start = "its start" if self.uniform is None else "the uniform guess"
        if score is None or carried is None:
            return f"Nothing can be told: training loss never fell below {start}."
        fell = f"training loss fell {_percent(s_max)} below {start}"
        if finding == "too little to tell":
            lags = "; of what it learnt last little carries over" if self.memorising_now else ""
            lags = "; so far held-out loss does not follow" if score <= MEMORISES else lags
            return f"Too little to tell: {fell}, and up to {_percent(LEARNED)} almost anything carries over{lags}."
        if carried <= 0:
            went = "held-out loss ended " + ("higher than it began" if self.uniform is None else f"above {start}")
        else:
            went = f"{_percent(min(carried, 1))} of that carried over to held-out rows"
        if finding == "learns":
            return f"It learns: {fell}, and {went}{', but little of the latest' if self.memorising_now else ''}."
        if finding == "memorises":
            return f"It memorises: {fell}, but {'only ' if carried > 0 else ''}{went}."
        if self._rises:
            return f"In part: {fell}, and {went}; since step {best:,} held-out loss rises."
        if best == self.readings[-1].step:
            return f"In part: {fell}, and {went}, but late: held-out loss lagged on the way."
        return f"In part: {fell}, and {went}; held-out loss was lowest at step {best:,}."

    @property
    def memory(self) -> float | None:
        """Which share of the progress so far is memory: 1 − h/s_max at the last reading, held within 0 and 1.

        What training loss fell and held-out loss did not, each as a share of its own start (or of `uniform`), over what
        training loss fell at its furthest. 0: all carries over to rows that training does not see. 1: nothing does.
        None while nothing can be told: before the second reading, and below a fall of training loss by TOLD.
        """
        s, h = (v[np.isfinite(v)] for v in self.progress())
        if len(s) < 2 or (s_max := float(s.max())) < TOLD:
            return None
        return min(max(1 - float(h[-1]) / s_max, 0.0), 1.0)

    @property
    def memorising_now(self) -> bool:
        """Has progress turned into memory? Training loss goes on falling, and little of that carries over.

        The latest progress runs from the last reading whose s lies LATELY of all progress or more below the mean of the
        last TURNED readings, up to that mean. What carries over of it is how far h went meanwhile over how far s went.
        That must be below MEMORISES by NOISE standard deviations: where s moves little against the noise of h,
        nothing is said, nor before a fall of training loss by TOLD.
        """
        s, h = self.progress()
        if len(s) <= TURNED or not (np.isfinite(s).all() and np.isfinite(h).all()):
            return False
        now, top = s[-TURNED:].mean(), s.max()
        begins = np.flatnonzero(now - s[:-TURNED] >= LATELY * top)
        if top < TOLD or s[-1] <= s[-TURNED - 1] or not len(begins):
            return False
        begin = begins[-1]
        noise = NOISE * _noise(h) * sqrt(1 + 1 / TURNED)
        return bool(h[-TURNED:].mean() - h[begin] + noise < MEMORISES * (now - s[begin]))

    @property
    def _rises(self) -> bool:
        """Does it memorise now, and has held-out loss stayed above its lowest by more than noise?"""
        if not self.memorising_now:
            return False
        h = self.progress()[1]
        return bool((h[-TURNED:] < h.max() - max(NOISE * _noise(h), RISE)).all())

    def line(self) -> str:
        """The last reading for a person who watches: what both losses did, and how much of it is memory."""
        if not self.readings:
            raise UserError("no reading was taken yet")
        step, train, held_out = self.readings[-1]
        start = f"step {step:,}:"
        s, h = (float(v[-1]) for v in self.progress())
        if not (isfinite(s) and isfinite(h)):
            return f"{start} a loss is no longer a number"
        if len(self.readings) < 2:
            return f"{start} training loss {train:.3g}, held-out {held_out:.3g}"
        share = self.memory
        told = "too little to tell" if share is None else f"{_words(share)} of the progress is memory"
        now = ", and so is what it learns now" if share and self.memorising_now else ""
        return f"{start} training loss {_change(s)}, held-out {_change(h)}: {told}{now}"

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


def rows_for(batch: int, steps: int | None) -> int:
    """How many rows of each side to read where the user does not say.

    As many as MOST readings within COST pay for, between FEW_ROWS and MANY_ROWS: where training is long enough, more
    rows make a reading surer. batch: rows of a step.
    """
    if steps is None:
        return FEW_ROWS
    return min(max(int(COST * 3 * batch * steps / (2 * MOST)), FEW_ROWS), MANY_ROWS)


def pace(batch: int, steps: int | None, reading: int, every: int | None = None) -> tuple[int, float]:
    """How often to read, and what share of the cost of training that comes to. -> steps between readings, share

    A forward pass of a row is 1, forward and backward are 3. batch: rows of a step. reading: rows that one reading
    looks at, of both sides together. As many readings are made as cost at most COST, but no fewer than FEWEST, without
    which there is no curve, and no more than MOST. Where the number of steps is not known they come evenly, as often
    as COST pays for. every: what the user asks for instead.
    """
    if steps is None:
        every = every or ceil(reading / (COST * 3 * batch))
        return every, reading / (3 * batch * every)
    steps = max(steps, 1)
    affordable = int(COST * 3 * batch * steps / reading)
    every = every or ceil(steps / (min(max(affordable, FEWEST), MOST) - 1))
    readings = 1 + ceil(steps / every)
    return every, readings * reading / (3 * batch * steps)


def _noise(curve: NDArray[np.float64]) -> float:
    """Standard deviation of a reading: of a smooth curve second differences are nearly all noise, √6 times that."""
    return float(np.median(np.abs(np.diff(curve, 2)))) / 0.6745 / sqrt(6)


_SHARES = (
    (0.0, "none"), (0.1, "a tenth"), (0.25, "a quarter"), (1 / 3, "a third"), (0.5, "half"), (2 / 3, "two thirds"),
    (0.75, "three quarters"), (0.9, "nine tenths"), (1.0, "all"),
)  # fmt: skip


def _words(share: float) -> str:
    return min(_SHARES, key=lambda entry: abs(entry[0] - share))[1]


def _change(share: float) -> str:
    """What a loss did that has fallen by a share."""
    percent = round(-100 * share)
    return f"{'−' if percent < 0 else '+' if percent > 0 else ''}{abs(percent)}%"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _write(path: Path, data: bytes) -> Path:
    make_folder(path.parent)
    write_atomically(path, data)
    return path
