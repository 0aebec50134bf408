"""A training that is killed after a step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tfctr.training import progress


class Killed(BaseException):
    """Nothing that handles errors handles it."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """In this context the trainings end after so many steps, counted from 1 over all of them."""
    after = progress.ProgressCallback.on_train_batch_end
    steps = 0

    def die(self: Any, batch: int, logs: Any = None) -> None:
        nonlocal steps
        after(self, batch, logs)
        steps += 1
        if steps == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress.ProgressCallback, "on_train_batch_end", die)
        with pytest.raises(Killed):
            yield
