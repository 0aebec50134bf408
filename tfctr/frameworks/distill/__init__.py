"""Distillation: a student learns from trained teachers' logits beside the clicks.

In the data's order: each teacher is a run of its own; a batch job
(`beam_pipelines.teacher_logits`) writes its logit for each row; `Distillation` trains the student.
"""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(__name__, {"Distillation": "distillation"})
