"""Several trials that differ in their seed, in one object."""

from collections.abc import Sequence
from typing import Any

from crevasse.stats import score


def over_seeds(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Scores as means with intervals, costs as sums. records: at least one; splits are those of any of them."""
    results = [r["result"] for r in records]

    def by_split(key: str) -> dict[str, Any]:
        splits = dict.fromkeys(k for r in results for k in r[key])
        return {k: score([r[key].get(k) for r in results]) for k in splits}

    return {
        "status": "done" if {r["status"] for r in records} == {"done"} else "diverged",
        "train": score([r["train"] for r in results]),
        "splits": by_split("splits"),
        "rule_score": by_split("rule_score"),
        **{k: score([r[k] for r in results]) for k in ("lockstep", "s_max", "memorising")},
        "learned": all(r["learned"] for r in results),
        **{k: sum(r[k] for r in results) for k in ("steps", "passes", "samples", "seconds")},
        "chance": results[0]["chance"],
        "ceiling": {k: v for r in results for k, v in r["ceiling"].items()},
        "notes": sorted({n for r in results for n in r["notes"]}),
    }
