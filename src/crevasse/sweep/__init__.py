"""Many trials: stacked in one process, on all cores of this machine, or on a cluster."""

from crevasse.sweep.engine import Engine, run_all
from crevasse.sweep.events import Event
from crevasse.sweep.plan import Job, Plan, make_plan

__all__ = ["Engine", "Event", "Job", "Plan", "make_plan", "run_all"]
