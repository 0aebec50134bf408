"""The files that the real TF Serving is started with: models, batching, monitoring."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tfctr.data import files

MODELS, BATCHING_FILE, MONITORING_FILE = "models.config", "batching.config", "monitoring.config"
BATCHING = """\
# Requests that arrive together run together, up to max_batch_size rows. For the signature `rank`
# a row is a request. A request of more rows than max_batch_size is refused.
max_batch_size {{ value: {max_batch_size} }}
batch_timeout_micros {{ value: {timeout_micros} }}
num_batch_threads {{ value: {threads} }}
max_enqueued_batches {{ value: {max_enqueued} }}
# Lists and candidates of merged requests differ in length; the client cuts the scores of padding.
pad_variable_length_inputs: true
"""
MONITORING = """\
# What Prometheus asks the REST port for.
prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }
"""


class ServingConfig(NamedTuple):
    """The files, for TF Serving's flags of these names."""

    model_config_file: Path
    batching_parameters_file: Path
    monitoring_config_file: Path


@dataclass(frozen=True)
class Hosted:
    """A model as `models.config` has it.

    Args:
        directory: as the server sees it.
        labels: versions by label; these are served, and no others. Where there are none, the
            newest version is.
    """

    directory: str
    labels: Mapping[str, int] = field(default_factory=dict)


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
            inside the container where TF Serving runs in one.
        out: folder, made if absent.
        max_batch_size: rows of a merged batch.
        timeout_micros: microseconds that a request waits for others.
        threads: batches that run at a time; the cores of the server are a good number.
        max_enqueued: batches that wait before the server answers UNAVAILABLE.

    Raises:
        ValueError: a directory is not absolute.
    """
    paths = _paths(Path(out))
    write_models(paths.model_config_file, {n: Hosted(str(d)) for n, d in directories.items()})
    # The messages of the other two are not part of tensorflow-serving-api.
    paths.batching_parameters_file.write_text(
        BATCHING.format(
            max_batch_size=max_batch_size,
            timeout_micros=timeout_micros,
            threads=threads,
            max_enqueued=max_enqueued,
        )
    )
    paths.monitoring_config_file.write_text(MONITORING)
    return paths


def _paths(folder: Path) -> ServingConfig:
    return ServingConfig(folder / MODELS, folder / BATCHING_FILE, folder / MONITORING_FILE)


def write_models(path: Path, models: Mapping[str, Hosted]) -> None:
    """Writes `models.config`, as a whole: a server may be looking.

    Raises:
        ValueError: a directory is not absolute.
    """
    config = model_server_config_pb2.ModelServerConfig()
    for name, hosted in models.items():
        if not Path(hosted.directory).is_absolute():
            raise ValueError(
                f"model {name!r}: found directory {hosted.directory!r}; TF Serving takes absolute "
                "paths only"
            )
        model = config.model_config_list.config.add(
            name=name, base_path=hosted.directory, model_platform="tensorflow"
        )
        for version in sorted(set(hosted.labels.values())):
            model.model_version_policy.specific.versions.append(version)
        for label, version in sorted(hosted.labels.items()):
            model.version_labels[label] = version
    content = text_format.MessageToString(config, as_utf8=True)
    files.write(str(path), content.encode())


def read_models(path: Path) -> dict[str, Hosted]:
    """What `write_models` wrote; none if there is no such file.

    Raises:
        ValueError: the file is not what TF Serving reads.
    """
    if not path.is_file():
        return {}
    try:
        config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a ModelServerConfig: {error}") from None
    return {
        model.name: Hosted(model.base_path, dict(model.version_labels))
        for model in config.model_config_list.config
    }


def label_versions(folder: Path, name: str, directory: str, labels: Mapping[str, int]) -> Path:
    """Says in `models.config` which versions of a model are served, and under which labels.

    Args:
        folder: of the config files; those that are not there are begun. Other models in
            `models.config` stay as they are.
        name: of the model.
        directory: of the model, as the server sees it.
        labels: versions by label; none at all: the newest version is served.

    Returns:
        The path of `models.config`.

    Raises:
        ValueError: as of `read_models` and `write_models`.
    """
    paths = _paths(folder)
    if not all(path.is_file() for path in paths[1:]):
        known = read_models(paths.model_config_file)
        write_config({}, folder)
        write_models(paths.model_config_file, known)
    models = read_models(paths.model_config_file) | {name: Hosted(directory, labels)}
    write_models(paths.model_config_file, models)
    return paths.model_config_file
