"""What a request costs: matrix products and milliseconds."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfctr.models.click_model import ClickModel
from tfctr.serving.c_session import CSession
from tfctr.serving.model_directory import signature_defs
from tfctr.serving.warmup import inputs_of, read_warmup

CANDIDATES = 100
PRODUCTS = ("MatMul", "BatchMatMul", "BatchMatMulV2")
NOT_COUNTED = ("Conv2D", "PartitionedCall", "StatefulPartitionedCall", "While")


def multiply_adds(call: Callable[..., Any], inputs: Mapping[str, Any]) -> int:
    """Of the matrix products of a call on tensors of these shapes.

    Raises:
        NotImplementedError: it has products that are not counted, as in a loop.
    """
    total = 0
    for op in matrix_products(call, inputs):
        if op.type == "Einsum":
            total += _of_einsum(op)
        else:
            inner = op.inputs[0].shape[-2 if op.get_attr(transposed(op)[0]) else -1]
            total += math.prod(op.outputs[0].shape.as_list()) * inner
    return total


def matrix_products(call: Callable[..., Any], inputs: Mapping[str, Any]) -> Iterator[Any]:
    """The operations of a call on tensors of these shapes that are matrix products, or `Einsum`.

    Raises:
        NotImplementedError: it has products that are not found, as in a loop.
    """
    specs = {name: tf.TensorSpec(values.shape, values.dtype) for name, values in inputs.items()}
    # Held here: without it the graph is taken apart.
    function = tf.function(lambda given: call(given)).get_concrete_function(specs)
    for op in function.graph.get_operations():
        if op.type in (*PRODUCTS, "Einsum"):
            yield op
        elif op.type in NOT_COUNTED:
            raise NotImplementedError(f"{op.type} is not counted")


def transposed(op: Any) -> tuple[str, str]:
    """The attributes of a product, not `Einsum`, that say which operands are transposed."""
    return ("transpose_a", "transpose_b") if op.type == "MatMul" else ("adj_x", "adj_y")


def _of_einsum(op: Any) -> int:
    given = op.get_attr("equation").decode().split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for letters, tensor in zip(given, op.inputs, strict=True):
        if "." in letters:
            raise NotImplementedError(f"Einsum {given} is not counted")
        sizes |= dict(zip(letters, tensor.shape.as_list(), strict=True))
    return math.prod(sizes.values()) if len(given) > 1 else 0


def multiply_adds_of_request(model: ClickModel, candidates: int = CANDIDATES) -> int:
    """Of `rank` for one user; errors as for `multiply_adds`."""
    items = [feature.name for feature in model.schema.side("item")]
    asked = {
        name: np.repeat(values[None], candidates, axis=1) if name in items else values
        for name, values in model._empty_row().items()
    }

    def rank(given: dict[str, Any]) -> Any:
        user = {k: v for k, v in given.items() if k not in items}
        return model.score(model.encode_user(user), {k: v for k, v in given.items() if k in items})

    return multiply_adds(rank, asked)


def milliseconds(versions: Sequence[Path], rounds: int = 200) -> list[float]:
    """The median time of `rank` with 100 candidates, of each exported version, asked in turn.

    In this process, by TensorFlow's C session, with one thread; so without a server's network.
    """
    asked = [_rank_request(version) for version in versions]
    taken: list[list[float]] = [[] for _ in versions]
    for round_ in range(-10, rounds):  # the first ones are warm-up
        for times, ask in zip(taken, asked, strict=True):
            start = time.perf_counter()
            ask()
            if round_ >= 0:
                times.append(time.perf_counter() - start)
    return [1000 * statistics.median(times) for times in taken]


def _rank_request(version: Path) -> Callable[[], Any]:
    definition = signature_defs(version)["rank"]
    requests = [inputs_of(log) for log in read_warmup(version) if log.HasField("predict_log")]
    _, inputs = [request for request in requests if request[0] == "rank"][-1]  # 100 candidates
    session = CSession(version, in_caller=True)
    given = {definition.inputs[name].name: values for name, values in inputs.items()}
    outputs = [definition.outputs["scores"].name]
    return lambda: session.run(given, outputs)
