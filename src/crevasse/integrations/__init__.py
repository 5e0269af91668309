"""Doors to other people's training: update rules and the lockstep meter in a loop that is not ours.

What needs torch or transformers is imported by who asks for it: `optimizer.RuleOptimizer`, `watch.LockstepWatch`,
`ddp.AgreementHook`, `trainer.LockstepCallback`, `rule_trainer.RuleTrainer`.
"""

from crevasse.integrations.meter import LockstepMeter, MeterResult

__all__ = ["LockstepMeter", "MeterResult"]
