"""What trials say while they run."""

from dataclasses import dataclass
from typing import Any

from crevasse.trial import Progress


@dataclass(frozen=True)
class Event:
    """Something that happened to a trial: it moved (progress), it ended (record), or it could not run (error)."""

    number: int  # of the trial in the list
    progress: Progress | None = None
    record: dict[str, Any] | None = None
    error: str | None = None

    @property
    def ended(self) -> bool:
        """Nothing more will be heard of this trial."""
        return self.record is not None or self.error is not None
