"""The config files of TF Serving: models, batching, monitoring."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tfctr.data import files

MODELS, BATCHING_FILE, MONITORING_FILE = "models.config", "batching.config", "monitoring.config"
BATCHING = """\
# Requests that arrive together run together, up to max_batch_size rows. A request to the signature
# `rank` counts as one row. A request with more rows than max_batch_size is refused.
max_batch_size {{ value: {max_batch_size} }}
batch_timeout_micros {{ value: {timeout_micros} }}
num_batch_threads {{ value: {threads} }}
max_enqueued_batches {{ value: {max_enqueued} }}
# Lists and candidates of merged requests differ in length; the client cuts the scores of padding.
pad_variable_length_inputs: true
"""
MONITORING = """\
# The path that Prometheus requests from the REST port.
prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }
"""


class ServingConfig(NamedTuple):
    """Paths of the files, by the names of TF Serving's flags."""

    model_config_file: Path
    batching_parameters_file: Path
    monitoring_config_file: Path


@dataclass(frozen=True)
class ModelEntry:
    """A model's entry in `models.config`.

    Args:
        directory: of the model, as the server sees it.
        labels: versions by label.
        versions: those to serve, with or without a label; empty: the newest one.
    """

    directory: str
    labels: Mapping[str, int] = field(default_factory=dict)
    versions: tuple[int, ...] = ()


def write_config(
    directories: Mapping[str, str | Path],
    out: str | Path,
    max_batch_size: int = 1024,
    timeout_micros: int = 1000,
    threads: int = 4,
    max_enqueued: int = 100,
) -> ServingConfig:
    """Writes `models.config`, `batching.config` and `monitoring.config` into `out`.

    Args:
        directories: the directory of each model by its name, as the server sees it: absolute, and
            inside the container if TF Serving runs in one.
        out: folder; created if it does not exist.
        max_batch_size: int. Most rows in a merged batch.
        timeout_micros: int. Microseconds that a request waits for others.
        threads: int. Number of batches that run at a time; the number of cores is a good choice.
        max_enqueued: int. Most batches that wait; then the server answers UNAVAILABLE.

    Returns:
        The paths of the files.

    Raises:
        ValueError: a directory is not absolute.
    """
    paths = _paths(Path(out))
    config = model_server_config_pb2.ModelServerConfig()
    for name, directory in directories.items():
        _add(config, name, ModelEntry(str(directory)))
    _write(paths.model_config_file, config)
    write_batching(out, max_batch_size, timeout_micros, threads, max_enqueued)
    write_monitoring(out)
    return paths


def write_batching(
    out: str | Path,
    max_batch_size: int = 1024,
    timeout_micros: int = 1000,
    threads: int = 4,
    max_enqueued: int = 100,
) -> Path:
    """Writes `batching.config` into `out`, for a server that merges requests.

    The arguments are those of `write_config`.

    Returns:
        The path of the file.
    """
    path = _paths(Path(out)).batching_parameters_file
    # This message and that of `monitoring.config` are not part of tensorflow-serving-api.
    content = BATCHING.format(
        max_batch_size=max_batch_size,
        timeout_micros=timeout_micros,
        threads=threads,
        max_enqueued=max_enqueued,
    )
    files.write(str(path), content.encode())
    return path


def write_monitoring(out: str | Path) -> Path:
    """Writes `monitoring.config` into `out`, and returns its path."""
    path = _paths(Path(out)).monitoring_config_file
    files.write(str(path), MONITORING.encode())
    return path


def write_model(path: Path, name: str, entry: ModelEntry | None) -> None:
    """Writes a model's entry in `models.config`, or removes it.

    The file is replaced as a whole, because a server may be reading it. Entries of other models
    stay as they are.

    Args:
        path: of `models.config`; created if it does not exist.
        name: of the model.
        entry: None removes the model.

    Raises:
        ValueError: as `read_models`; the directory is not absolute.
    """
    config = _read(path)
    models = config.model_config_list.config
    others = [model for model in models if model.name != name]
    if entry is None:
        del models[:]
        models.extend(others)
    elif len(others) == len(models):
        _add(config, name, entry)
    else:
        _fill(next(model for model in models if model.name == name), entry)
    _write(path, config)


def read_models(path: Path) -> dict[str, ModelEntry]:
    """The entries of a `models.config` by the models' names; empty if there is no such file.

    Raises:
        ValueError: the file is not a `ModelServerConfig`.
    """
    return {
        model.name: ModelEntry(
            model.base_path,
            dict(model.version_labels),
            tuple(sorted(model.model_version_policy.specific.versions)),
        )
        for model in _read(path).model_config_list.config
    }


def _paths(folder: Path) -> ServingConfig:
    return ServingConfig(folder / MODELS, folder / BATCHING_FILE, folder / MONITORING_FILE)


def _read(path: Path) -> Any:
    config = model_server_config_pb2.ModelServerConfig()
    if not path.is_file():
        return config
    try:
        return text_format.Parse(path.read_text(), config)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a ModelServerConfig: {error}") from None


def _write(path: Path, config: Any) -> None:
    files.write(str(path), text_format.MessageToString(config, as_utf8=True).encode())


def _add(config: Any, name: str, entry: ModelEntry) -> None:
    _fill(config.model_config_list.config.add(name=name, model_platform="tensorflow"), entry)


def _fill(model: Any, entry: ModelEntry) -> None:
    if not Path(entry.directory).is_absolute() and "://" not in entry.directory:
        raise ValueError(
            f"model {model.name!r}: found directory {entry.directory!r}; TF Serving takes "
            "absolute paths only, or addresses such as gs://bucket/models"
        )
    model.base_path = entry.directory
    model.ClearField("model_version_policy")
    if entry.versions:
        model.model_version_policy.specific.versions.extend(sorted(set(entry.versions)))
    model.ClearField("version_labels")
    for label, version in sorted(entry.labels.items()):
        model.version_labels[label] = version
