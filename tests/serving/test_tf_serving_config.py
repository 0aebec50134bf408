"""The files that TF Serving is started with."""

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from tfctr.serving import write_config
from tfctr.serving.tf_serving_config import ModelEntry, read_models, write_model


def test_config_files_parse_as_tf_serving_reads_them(tmp_path: Path) -> None:
    directories = {"tiny": "/models/tiny", "other": Path("/models/other")}
    models, batching, monitoring = write_config(
        directories, tmp_path / "config", max_batch_size=64, threads=2
    )
    config = text_format.Parse(models.read_text(), model_server_config_pb2.ModelServerConfig())
    assert [(c.name, c.base_path, c.model_platform) for c in config.model_config_list.config] == [
        ("tiny", "/models/tiny", "tensorflow"),
        ("other", "/models/other", "tensorflow"),
    ]
    values = text_format.Parse(batching.read_text(), _batching_parameters())
    assert values.max_batch_size.value == 64
    assert values.num_batch_threads.value == 2
    assert values.batch_timeout_micros.value == 1000
    assert values.pad_variable_length_inputs is True
    assert 'path: "/monitoring/prometheus/metrics"' in monitoring.read_text()
    with pytest.raises(ValueError, match="absolute"):
        write_config({"tiny": "saved_models/tiny"}, tmp_path)


def test_one_model_of_the_config_is_changed_and_the_rest_stays(tmp_path: Path) -> None:
    path = write_config({"tiny": "/models/tiny", "other": "/models/other"}, tmp_path)[0]
    path.write_text(
        path.read_text().replace('"/models/other"', '"/models/other" logging_config {}')
    )
    two = ModelEntry("/models/tiny", {"stable": 3, "canary": 4}, (2, 3, 4))
    write_model(path, "tiny", two)
    config = text_format.Parse(path.read_text(), model_server_config_pb2.ModelServerConfig())
    tiny, other = config.model_config_list.config
    assert list(tiny.model_version_policy.specific.versions) == [2, 3, 4]
    assert dict(tiny.version_labels) == {"stable": 3, "canary": 4}
    assert not other.HasField("model_version_policy")
    assert other.HasField("logging_config")  # not ours, and kept
    assert read_models(path) == {"tiny": two, "other": ModelEntry("/models/other")}
    write_model(path, "tiny", ModelEntry("gs://bucket/tiny"))
    assert read_models(path)["tiny"] == ModelEntry("gs://bucket/tiny")
    write_model(path, "tiny", None)
    assert [*read_models(path)] == ["other"]
    assert read_models(tmp_path / "none.config") == {}
    path.write_text("model_config_list { nonsense")
    with pytest.raises(ValueError, match=r"models\.config: not a ModelServerConfig"):
        read_models(path)


def _batching_parameters() -> Any:
    """`tensorflow.serving.BatchingParameters`, of which no Python module is published."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name="BatchingParameters")
    for number, name in enumerate(
        ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads"), 1
    ):
        message.field.add(
            name=name,
            number=number,
            type=field.TYPE_MESSAGE,
            type_name=".google.protobuf.Int64Value",
            label=field.LABEL_OPTIONAL,
        )
    message.field.add(
        name="pad_variable_length_inputs",
        number=7,
        type=field.TYPE_BOOL,
        label=field.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("BatchingParameters"))()
