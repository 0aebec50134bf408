"""Lets Beam look at each function and each kind of options once: half of a small pipeline's time.

It inspects the signatures of every DoFn eight times, and parses its options some three hundred
times. What it finds is the same each time.
"""

import functools
from collections.abc import Callable
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms import core, userstate
from apache_beam.typehints import decorators


def install() -> None:
    """In this process."""
    userstate.get_dofn_specs = functools.lru_cache(4096)(userstate.get_dofn_specs)
    core.get_signature = _once_a_function(decorators.get_signature)
    PipelineOptions.view_as = _once_a_kind(PipelineOptions.view_as)


def _once_a_function(signature: Callable[[Any], Any]) -> Callable[[Any], Any]:
    found: dict[Any, Any] = {}

    def known(function: Any) -> Any:
        is_bound = getattr(function, "__self__", None) is not None
        key = getattr(function, "__func__", function), is_bound
        try:
            if key not in found:
                found[key] = signature(function)
        except TypeError:  # not hashable
            return signature(function)
        return found[key]

    return known


def _once_a_kind(view_as: Callable[[Any, type], Any]) -> Callable[[Any, type], Any]:
    # Options can't be weakly referenced or hashed; kept ones also keep their `id`.
    found: dict[tuple[int, type], tuple[Any, Any]] = {}

    def known(options: Any, kind: type) -> Any:
        key = id(options), kind
        if key not in found:
            found[key] = options, view_as(options, kind)
        return found[key][1]

    return known
