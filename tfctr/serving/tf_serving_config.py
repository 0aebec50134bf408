"""The two files that the real TF Serving is started with: its models, and how it batches."""

from collections.abc import Mapping
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

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


def write_config(
    directories: Mapping[str, str | Path],
    out: str | Path,
    max_batch_size: int = 1024,
    timeout_micros: int = 1000,
    threads: int = 4,
    max_enqueued: int = 100,
) -> tuple[Path, Path]:
    """Writes `models.config` and `batching.config` into `out`.

    Args:
        directories: the directory of each model by its name, as the server sees it: absolute, and
            inside the container where TF Serving runs in one.
        out: folder, made if absent.
        max_batch_size: rows of a merged batch.
        timeout_micros: microseconds that a request waits for others.
        threads: batches that run at a time; the cores of the server are a good number.
        max_enqueued: batches that wait before the server answers UNAVAILABLE.

    Returns:
        The paths, for `--model_config_file` and `--batching_parameters_file`.

    Raises:
        ValueError: a directory is not absolute.
    """
    out = Path(out)
    config = model_server_config_pb2.ModelServerConfig()
    for name, directory in directories.items():
        if not Path(directory).is_absolute():
            raise ValueError(
                f"model {name!r}: found directory {str(directory)!r}; TF Serving takes absolute "
                "paths only"
            )
        config.model_config_list.config.add(
            name=name, base_path=str(directory), model_platform="tensorflow"
        )
    out.mkdir(parents=True, exist_ok=True)
    models, batching = out / "models.config", out / "batching.config"
    models.write_text(text_format.MessageToString(config, as_utf8=True))
    # The message (session_bundle_config.proto) is not part of tensorflow-serving-api.
    batching.write_text(
        BATCHING.format(
            max_batch_size=max_batch_size,
            timeout_micros=timeout_micros,
            threads=threads,
            max_enqueued=max_enqueued,
        )
    )
    return models, batching
