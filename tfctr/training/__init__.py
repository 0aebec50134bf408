"""The training loop of a run, what it trains for, and its optimizers."""

from tfctr.lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "Clicks": "objectives",
        "Diverged": "divergence",
        "Objective": "objectives",
        "TrainingState": "checkpoint",
        "make_optimizer": "optimizer",
        "open_strategy": "distribution",
        "train": "loop",
    },
)
