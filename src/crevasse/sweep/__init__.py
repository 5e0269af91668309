"""Many trials: on all cores of this machine."""

from crevasse.sweep.local import Event, run_all

__all__ = ["Event", "run_all"]
