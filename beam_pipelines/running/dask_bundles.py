"""Keeps Beam's Dask runner from repeating elements, and from losing what `finish_bundle` gives.

The report for its maintainers is in docs/upstream/beam-dask-runner.md.
"""

import copy
import inspect
from collections.abc import Iterable
from typing import Any

import apache_beam as beam
from apache_beam.runners.common import DoFnInvoker
from apache_beam.runners.dask import transform_evaluator

from tfctr.config import ConfigError

# Saved before `install` replaces it, also on a worker that is a thread of this process.
_apply = transform_evaluator.apply_dofn_to_bundle
PARAMETERS = ["items", "do_fn_invoker_args", "do_fn_invoker_kwargs", "tagged_receivers"]


def install() -> None:
    """Makes pipelines on Dask collect each bundle's outputs separately, from now on.

    Raises:
        ConfigError: this version of Beam has another runner.
    """
    if list(inspect.signature(_apply).parameters) != PARAMETERS:
        raise ConfigError(
            f"apache-beam {beam.__version__} has another {transform_evaluator.__name__}, so its "
            "Dask runner can't be kept from repeating elements; install 2.77"
        )
    transform_evaluator.apply_dofn_to_bundle = apply_to_bundle


def apply_to_bundle(
    items: Iterable[Any], invoker_args: list[Any], invoker_kwargs: dict[str, Any], receivers: Any
) -> list[Any]:
    """A `DoFn`'s outputs for one bundle.

    Beam creates the receivers once per step. Bundles that a worker gets together share them, so the
    next bundle returns the outputs of the one before again. And it takes the outputs before
    `finish_bundle` gives its own.
    """
    outputs, receivers = copy.deepcopy((invoker_args[1], receivers))
    invoker = DoFnInvoker.create_invoker(invoker_args[0], outputs, **invoker_kwargs)
    invoker.invoke_setup()
    invoker.invoke_start_bundle()
    for item in items:
        invoker.invoke_process(item)
    invoker.invoke_finish_bundle()
    invoker.invoke_teardown()
    return [value.value for value in receivers.values]
