"""A `PredictRequest` whose tensors stay serialized: TensorFlow parses them itself.

Python objects for each tensor, size and value would cost more than the model.
"""

import functools

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow.core.framework import tensor_shape_pb2
from tensorflow_serving.apis import model_pb2

_MAX_CACHED = 64  # bytes of a shape that is cached

# The wire format is that of TensorFlow's messages. `tensor_shape` is repeated because a message
# field may occur twice; its value is the merge of both, which is their bytes concatenated.
_FILE = f"""
name: "tfctr/raw_requests.proto" package: "tfctr.raw" syntax: "proto3"
dependency: "{model_pb2.DESCRIPTOR.name}"
message_type {{
  name: "PredictRequest"
  field {{
    name: "model_spec" number: 1 label: LABEL_OPTIONAL
    type: TYPE_MESSAGE type_name: ".tensorflow.serving.ModelSpec"
  }}
  field {{
    name: "inputs" number: 2 label: LABEL_REPEATED
    type: TYPE_MESSAGE type_name: ".tfctr.raw.PredictRequest.InputsEntry"
  }}
  field {{ name: "output_filter" number: 3 label: LABEL_REPEATED type: TYPE_STRING }}
  nested_type {{
    name: "InputsEntry" options {{ map_entry: true }}
    field {{ name: "key" number: 1 label: LABEL_OPTIONAL type: TYPE_STRING }}
    field {{ name: "value" number: 2 label: LABEL_OPTIONAL type: TYPE_BYTES }}
  }}
}}
message_type {{
  name: "Tensor"
  field {{ name: "dtype" number: 1 label: LABEL_OPTIONAL type: TYPE_INT32 }}
  field {{ name: "tensor_shape" number: 2 label: LABEL_REPEATED type: TYPE_BYTES }}
  field {{ name: "tensor_content" number: 4 label: LABEL_OPTIONAL type: TYPE_BYTES }}
  field {{ name: "string_val" number: 8 label: LABEL_REPEATED type: TYPE_BYTES }}
}}
"""
_pool = descriptor_pool.Default()
_pool.AddSerializedFile(
    text_format.Parse(_FILE, descriptor_pb2.FileDescriptorProto()).SerializeToString()
)
RawPredictRequest = message_factory.GetMessageClass(
    _pool.FindMessageTypeByName("tfctr.raw.PredictRequest")
)
RawTensor = message_factory.GetMessageClass(_pool.FindMessageTypeByName("tfctr.raw.Tensor"))
"""The fields of a `TensorProto` that are checked before TensorFlow reads it."""


def sizes(shape: bytes) -> tuple[int, ...]:
    """The sizes of the dimensions of a serialized `TensorShapeProto`."""
    return _cached_sizes(shape) if len(shape) <= _MAX_CACHED else _sizes(shape)


def _sizes(shape: bytes) -> tuple[int, ...]:
    return tuple(dim.size for dim in tensor_shape_pb2.TensorShapeProto.FromString(shape).dim)


_cached_sizes = functools.lru_cache(4096)(_sizes)
