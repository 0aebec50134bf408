"""Optimizers whose step cost depends on the batch, not on the size of the tables."""

from tfctr.optimizers.lazy_adagrad import LazyAdagrad
from tfctr.optimizers.lazy_adam import LazyAdam
from tfctr.optimizers.rows import catch_up

__all__ = ["LazyAdagrad", "LazyAdam", "catch_up"]
