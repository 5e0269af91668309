"""Crevasse: did training find the rule, or memorise the answers?"""

from crevasse.api import make_config, run, solve, study
from crevasse.errors import UserError

__all__ = ["UserError", "make_config", "run", "solve", "study"]
