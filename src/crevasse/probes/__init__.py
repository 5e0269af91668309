"""What is measured. A probe leaves training bitwise unchanged: it draws nothing and writes nothing.

What needs torch is imported by who asks for it: `sharpness` and `landscape`, which look at weights from outside. What
they draw is theirs alone.
"""

from crevasse.probes.lockstep import LEARNED, Lockstep, lockstep, memorising_share, progress, step_ratios

__all__ = ["LEARNED", "Lockstep", "lockstep", "memorising_share", "progress", "step_ratios"]
