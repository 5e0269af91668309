"""A store of 10,000 trials: seconds to list and to filter it, as the command line does, and to build its catalogue."""

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from crevasse.catalogue import INDEX, read_catalogue
from measure import Figure, seconds

TRIALS = 10_000
WHERE = "train >= .9 and random < .2"


def fill(root: Path) -> None:
    """Write as many trial.json files as there are TRIALS, about 8 KB each, as those of real trials are."""
    draw = random.Random(0)
    output = {"problem": "3 7 11 2", "written": "14", "answer": "14", "expected": "3", "correct": False,
              "unreadable": [], "fault": {"kind": "answer", "token": 0, "expected": "3", "written": "14"}}  # fmt: skip
    tests = ("random", "interpolation", "extrapolation")
    for number in range(TRIALS):
        scores = {t: draw.random() for t in tests}
        result = {
            "train": draw.random(), "splits": scores, "rule_score": scores, "ceiling": dict.fromkeys(tests, 1.0),
            "non_learners": {t: {"majority": 0.1, "lookup": 0.1, "nearest": 0.1} for t in tests},
            "outputs": {t: [output] * 7 for t in ("train", *tests)}, "lockstep": 0.5, "s_max": 0.9, "learned": True,
            "memorising": 0.1, "steps": 600, "passes": 1200.0, "samples": 76800, "seconds": 11.1,
            "examples": {"train": 2000, **dict.fromkeys(tests, 1000)}, "notes": [],
        }  # fmt: skip
        record = {
            "id": f"{number:012x}", "revision": 0, "status": "done",
            "describe": f"sum · direct · transformer · adamw · all examples · 600 steps · seed {number}",
            "config": {"task": {"name": "sum", "p": 31, "n": "2-4+6-8"}, "labels": "true", "train": None, "steps": 600,
                       "batch": 128, "seed": number},
            "environment": {"python": "3.11", "machine": "Linux"}, "result": result, "files": {},
        }  # fmt: skip
        folder = root / "trials" / record["id"]
        folder.mkdir(parents=True)
        (folder / "trial.json").write_text(json.dumps(record, indent=1), "utf-8")


def figures() -> Iterator[Figure]:
    """Seconds of whole commands with a catalogue that is up to date, and of building one."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        fill(root)

        def ls(*words: str) -> None:
            command = [sys.executable, "-m", "crevasse.cli", "ls", folder, *words]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        def build() -> None:
            (root / INDEX).unlink(missing_ok=True)
            read_catalogue(root)

        yield Figure(f"seconds to catalogue {TRIALS} trials, cold", [seconds(build) for _ in range(5)], None)
        for name, words in (("list", ()), ("list as JSON", ("--json",)), ("filter", ("--where", WHERE))):
            values = [seconds(lambda words=words: ls(*words)) for _ in range(7)]
            yield Figure(f"seconds to {name}, {TRIALS} trials, warm", values, "≤ 1")


if __name__ == "__main__":
    for figure in figures():
        print(figure)
