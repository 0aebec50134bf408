"""Small encoders in Hugging Face's layout, and what they compute, in plain NumPy."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from scipy.stats import norm

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    *"abcdefghijklmnopqrstuvwxyz0123456789",
    *(f"##{sign}" for sign in "abcdefghijklmnopqrstuvwxyz0123456789"),
    *".,:;|()'!?-",
    *("this", "is", "a", "user", "movie", "title", "genre", "age", "unknown", "toy", "story"),
    *("comedy", "drama", "##s", "watched", "the", "who", "has"),
]
VOCABULARY = list(dict.fromkeys([*SPECIAL, *WORDS]))


def bert_tensors(
    layers: int = 2, width: int = 8, inner: int = 16, positions: int = 64, seed: int = 0
) -> dict[str, np.ndarray]:
    """Random weights of a BERT with its masked-LM head, under Hugging Face's names."""
    rng = np.random.default_rng(seed)

    def dense(name: str, outputs: int, inputs: int) -> dict[str, np.ndarray]:
        return {f"{name}.weight": rng.normal(0, 0.5, (outputs, inputs)), **bias(name, outputs)}

    def bias(name: str, size: int) -> dict[str, np.ndarray]:
        return {f"{name}.bias": rng.normal(0, 0.5, size)}

    def normal(name: str) -> dict[str, np.ndarray]:
        return {f"{name}.weight": rng.normal(1, 0.2, width), **bias(name, width)}

    found: dict[str, np.ndarray] = {
        "bert.embeddings.word_embeddings.weight": rng.normal(0, 1, (len(VOCABULARY), width)),
        "bert.embeddings.position_embeddings.weight": rng.normal(0, 1, (positions, width)),
        "bert.embeddings.token_type_embeddings.weight": rng.normal(0, 1, (2, width)),
        **normal("bert.embeddings.LayerNorm"),
    }
    for i in range(layers):
        layer = f"bert.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            found |= dense(f"{layer}.attention.self.{part}", width, width)
        found |= dense(f"{layer}.attention.output.dense", width, width)
        found |= normal(f"{layer}.attention.output.LayerNorm")
        found |= dense(f"{layer}.intermediate.dense", inner, width)
        found |= dense(f"{layer}.output.dense", width, inner) | normal(f"{layer}.output.LayerNorm")
    found |= dense("bert.pooler.dense", width, width)
    found |= dense("cls.predictions.transform.dense", width, width)
    found |= normal("cls.predictions.transform.LayerNorm") | bias(
        "cls.predictions", len(VOCABULARY)
    )
    return {name: np.asarray(values, np.float32) for name, values in found.items()}


def write_bert(folder: Path, tensors: dict[str, np.ndarray], heads: int = 2) -> Path:
    """A folder as published: configuration, weights, vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    table = tensors["bert.embeddings.word_embeddings.weight"]
    about = {
        "model_type": "bert",
        "vocab_size": len(table),
        "hidden_size": table.shape[1],
        "num_hidden_layers": sum("intermediate.dense.weight" in name for name in tensors),
        "num_attention_heads": heads,
        "intermediate_size": len(tensors["bert.encoder.layer.0.intermediate.dense.bias"]),
        "max_position_embeddings": len(tensors["bert.embeddings.position_embeddings.weight"]),
    }
    (folder / "config.json").write_text(json.dumps(about))
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in VOCABULARY))
    save_file(tensors, folder / "model.safetensors")
    return folder


def run_bert(
    tensors: dict[str, np.ndarray], tokens: np.ndarray, exists: np.ndarray, heads: int = 2
) -> np.ndarray:
    """The last layer `[B, T, H]`, word by word and head by head."""

    def dense(x: np.ndarray, name: str) -> np.ndarray:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def normed(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    rows = []
    for ids, real in zip(tokens, exists, strict=True):
        x = tensors["bert.embeddings.word_embeddings.weight"][ids]
        x = x + tensors["bert.embeddings.position_embeddings.weight"][: len(ids)]
        x = x + tensors["bert.embeddings.token_type_embeddings.weight"][0]
        x = normed(x, "bert.embeddings.LayerNorm")
        i = 0
        while f"bert.encoder.layer.{i}.output.dense.bias" in tensors:
            layer = f"bert.encoder.layer.{i}"
            parts = [dense(x, f"{layer}.attention.self.{p}") for p in ("query", "key", "value")]
            size = x.shape[1] // heads
            found = np.zeros_like(x)
            for head in range(heads):
                q, k, v = (part[:, head * size : (head + 1) * size] for part in parts)
                for t in range(len(ids)):
                    scores = np.array([q[t] @ k[s] / np.sqrt(size) for s in range(len(ids))])
                    weights = np.exp(scores - scores[real].max()) * real
                    weights /= weights.sum()
                    found[t, head * size : (head + 1) * size] = weights @ v
            found = dense(found, f"{layer}.attention.output.dense")
            x = normed(x + found, f"{layer}.attention.output.LayerNorm")
            inner = dense(_gelu(dense(x, f"{layer}.intermediate.dense")), f"{layer}.output.dense")
            x = normed(x + inner, f"{layer}.output.LayerNorm")
            i += 1
        rows.append(x)
    return np.stack(rows)


def run_head(tensors: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """Logits of the vocabulary for vectors `[n, H]`."""
    name = "cls.predictions.transform"
    x = x @ tensors[f"{name}.dense.weight"].T + tensors[f"{name}.dense.bias"]
    x = x * norm.cdf(x)  # gelu
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    x = x * tensors[f"{name}.LayerNorm.weight"] + tensors[f"{name}.LayerNorm.bias"]
    return x @ tensors["bert.embeddings.word_embeddings.weight"].T + tensors["cls.predictions.bias"]


def _gelu(x: np.ndarray) -> Any:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
