"""Run every benchmark: a line a figure, and the same in benchmarks/latest.json."""

import importlib
import json
import platform
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = (
    "problems",
    "metering",
    "meter",
    "watching",
    "noisy_labels",
    "training",
    "agreement",
    "rules",
    "grokking",
    "stacking",
    "costs",
    "fine_tuning",
    "store",
)


def main() -> None:
    """Names, medians, spreads and goals."""
    rows = []
    for name in BENCHMARKS:
        for figure in importlib.import_module(name).figures():
            print(figure, flush=True)
            spread = [min(figure.values), max(figure.values)]
            rows.append({"name": figure.name, "value": figure.value, "spread": spread, "goal": figure.goal})
    latest = {"machine": platform.platform(), "figures": rows}
    (HERE / "latest.json").write_text(json.dumps(latest, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
