"""What is measured. A probe leaves training bitwise unchanged: it draws nothing and writes nothing."""

from crevasse.probes.lockstep import LEARNED, Lockstep, lockstep, memorising_share, progress, step_ratios

__all__ = ["LEARNED", "Lockstep", "lockstep", "memorising_share", "progress", "step_ratios"]
