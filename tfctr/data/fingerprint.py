"""64-bit keys of values and pseudo-random numbers of rows, the same on every machine."""

import hashlib

import numpy as np
import pyarrow as pa


def row_keys(values: pa.Array) -> np.ndarray:
    """int64 `[N]`: integers as they are, strings by a 64-bit hash, 0 for null."""
    if pa.types.is_integer(values.type):
        return values.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    encoded = values.dictionary_encode()
    hashes = [
        hashlib.blake2b(token.encode(), digest_size=8).digest()
        for token in encoded.dictionary.to_pylist()
    ]
    table = np.frombuffer(b"".join([*hashes, bytes(8)]), "<i8")
    places = encoded.indices.fill_null(len(hashes)).to_numpy(zero_copy_only=False)
    return table[places]


def mix(values: np.ndarray, seed: int) -> np.ndarray:
    """uint64 `[N]`, evenly spread (splitmix64: Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        x = values.astype(np.int64).view(np.uint64) + np.uint64(
            (seed + 1) * 0x9E3779B97F4A7C15 % 2**64
        )
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def chances(values: np.ndarray, seed: int) -> np.ndarray:
    """float64 `[N]` from 0 to 1, of `mix`."""
    return mix(values, seed).astype(np.float64) / 2.0**64
