"""Doors to other people's training: the lockstep meter in a loop that is not ours.

`crevasse.integrations.trainer` needs transformers and is imported only by who asks for it.
"""

from crevasse.integrations.meter import LockstepMeter, MeterResult

__all__ = ["LockstepMeter", "MeterResult"]
