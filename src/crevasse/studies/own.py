"""Are evidence and measures those of a study, and made by this version? Asked before anything is decided anew."""

import json
from collections.abc import Collection, Mapping, Sequence

from crevasse.config import config_id
from crevasse.errors import UserError
from crevasse.studies.base import Arm, Row
from crevasse.studies.measures import Measure

_AGAIN = "run the study again (what it has already run is kept)"


def require_trials(arms: Sequence[Arm], rows: Sequence[Row], these: str) -> None:
    """Raises UserError unless the rows are the trials of these arms, all of them. these: ``these claims``."""
    due = {(a.name, c.seed): c.id for a in arms for c in a.trials()}
    for row in rows:
        if (
            config_id(json.loads(row["config"])) != row["trial"]
            or due.pop((row["arm"], row["seed"]), "") != row["trial"]
        ):
            raise UserError(
                f"the evidence is not that of {these}: {row['arm']}, seed {row['seed']} ({row['trial']}) is not asked "
                f"for by this version; {_AGAIN}"
            )
    if due:
        (arm, seed), *_ = due
        raise UserError(f"the evidence lacks {len(due)} trials (first {arm}, seed {seed}); {_AGAIN}")


def require_measures(
    versions: Mapping[str, int], needed: Collection[str], measures: Sequence[Measure], these: str
) -> None:
    """Raises UserError unless all that is needed was measured, and by this version.

    versions: part of the study -> version of what measures it; needed: the parts that measure something.
    """
    there = {m["claim"] for m in measures}
    if lacking := [part for part in needed if part not in there]:
        raise UserError(f"nothing is there of what was measured for {', '.join(lacking)}; {_AGAIN}")
    for m in measures:
        if m["claim"] not in versions:
            raise UserError(f"something was measured for {m['claim']}, which is none of {these}; {_AGAIN}")
        if m["version"] != versions[m["claim"]]:
            raise UserError(
                f"{m['claim']} was measured by another version ({m['version']}, now {versions[m['claim']]}); {_AGAIN}"
            )
