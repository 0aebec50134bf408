"""What TF Serving's batcher makes of requests that arrive together, as it was observed to.

Tensors are put one behind another. A dimension of unequal length is padded with the tensor's first
value, whatever that means; a tensor without values beside others is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf

from tfctr.schema import Numeric, Tokens, Vector
from tfctr.serving.exporter.raw_features import read_tokens
from tfctr.serving.exporter.warmup_requests import example
from tfctr.serving.model_directory import served_schema
from tfctr.serving.raw_values import MISSING, raw_dtype

BASIC = {"serving_default", "examples", "classify", "regress", "rank"}
SIZES = ((1, 3), (3, 1), (2, 4))  # rows and candidates of each request


def merge(tensors: Sequence[np.ndarray]) -> np.ndarray:
    longest = np.max([tensor.shape[1:] for tensor in tensors], axis=0).astype(int)
    padded = []
    for tensor in tensors:
        if tensor.size == 0:
            raise ValueError("Got empty tensor in batch of non-empty tensors.")
        widths = [
            (0, 0),
            *((0, int(n) - m) for n, m in zip(longest, tensor.shape[1:], strict=True)),
        ]
        padded.append(np.pad(tensor, widths, constant_values=tensor.flat[0]))
    return np.concatenate(padded)


def assert_merged_is_each(
    version: Path, signatures: set[str], files: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Scores of requests that are merged are those of each alone, for all signatures.

    Args:
        version: folder of an exported version.
        signatures: those that it should have.
        files: names of the vocabularies' files, where they are not the schema's.
    """
    served = tf.saved_model.load(str(version))
    assert set(served.signatures) == signatures
    for name in signatures:
        signature = served.signatures[name]
        requests = list(_requests(version, served, name, files))
        alone = [_answers(signature, request) for request in requests]
        inputs = requests[0].keys()
        together = {key: merge([request[key] for request in requests]) for key in inputs}
        answers = _answers(signature, together)
        floats = [values for values in answers.values() if values.dtype.kind == "f"]
        assert any(np.ptp(values) > 1e-4 for values in floats), name
        first = 0
        for (rows, _), expected in zip(SIZES, alone, strict=True):
            for key, values in expected.items():
                found = answers[key][first : first + rows]
                found = found[tuple(slice(size) for size in values.shape)]  # padding's are cut off
                if values.dtype == object:
                    np.testing.assert_array_equal(found, values, err_msg=f"{name} {key}")
                else:
                    np.testing.assert_allclose(found, values, atol=1e-5, err_msg=f"{name} {key}")
            first += rows


def _answers(signature: Any, request: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    specs = signature.structured_input_signature[1]
    tensors = {name: tf.constant(values, specs[name].dtype) for name, values in request.items()}
    return {name: values.numpy() for name, values in signature(**tensors).items()}


def _requests(
    version: Path, served: Any, name: str, files: Mapping[str, str]
) -> Iterator[dict[str, np.ndarray]]:
    schema = served_schema(version)

    def values(feature: Any, shape: list[int]) -> np.ndarray:
        file = files.get(feature.name, getattr(feature, "vocabulary", ""))
        return _values(version / "assets" / f"{file}.txt", feature, shape, rng)

    specs = served.signatures[name].structured_input_signature[1]
    rng = np.random.default_rng(0)
    for rows, candidates in SIZES:
        request = {}
        if name == "score":
            keep = served.signatures["encode_user"]
            user = keep.structured_input_signature[1]
            raw = {n: values(schema[n], [rows]) for n in user}
            request = _answers(keep, raw)
        for key, spec in specs.items():
            if key in request:
                assert None not in spec.shape[1:], f"{name}: {key} {spec.shape}"
                continue
            if key in ("examples", "inputs"):
                columns = {f.name: values(f, [rows]) for f in schema.inputs}
                request[key] = _examples(columns, rows)
                continue
            feature = schema[key]
            open_sizes = spec.shape[1:2] if len(spec.shape) > 1 + feature.is_list else ()
            assert None not in spec.shape[1 + len(open_sizes) :], f"{name}: {key} {spec.shape}"
            shape = [rows, *(candidates for _ in open_sizes)]
            request[key] = values(feature, shape)
        yield request


def _values(file: Path, feature: Any, shape: list[int], rng: Any) -> np.ndarray:
    """Random values; lists of random length, filled up with what is missing."""
    if isinstance(feature, Numeric):
        return rng.normal(feature.mean or 0.0, 1.0, shape).astype(np.float32)
    if isinstance(feature, Vector):
        return rng.normal(size=(*shape, feature.max_length)).astype(np.float32)
    if isinstance(feature, Tokens):
        return rng.integers(5, 100, (*shape, feature.max_length))
    tokens = read_tokens(file) or [b"7"]
    dtype = raw_dtype(feature)
    choices: Any = np.array([*tokens, b"?"], object)
    if dtype == tf.int64:
        choices = np.array(list(map(int, tokens)))
    if feature.is_list:
        shape = [*shape, feature.max_length]
    values = rng.choice(choices, shape)
    if feature.is_list:
        lengths = rng.integers(0, feature.max_length + 1, shape[:-1])
        values[np.arange(feature.max_length) >= lengths[..., np.newaxis]] = MISSING[dtype]
    return values


def _examples(columns: dict[str, np.ndarray], rows: int) -> np.ndarray:
    names = columns.keys()
    found = [example({n: np.atleast_1d(columns[n][row]) for n in names}) for row in range(rows)]
    return np.array([one.SerializeToString() for one in found], object)
