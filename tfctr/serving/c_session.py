"""Runs a SavedModel through TensorFlow's C API, without Python between request and graph.

It loads the SavedModel as TF Serving does: `LoadSavedModel`, then a session. `tf.saved_model.load`
makes a Python object of each function of the graph, and calling one costs several times as much.
TensorFlow's Python package is not imported; only its library is loaded.
"""

import ctypes
import functools
import importlib.util
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

STRING = 7  # DT_STRING
_DTYPES = {np.dtype(np.float32): 1, np.dtype(np.int32): 3, np.dtype(np.int64): 9}
_NUMPY: dict[int, Any] = {number: dtype for dtype, number in _DTYPES.items()} | {
    10: np.dtype(np.bool_)
}
_IN_CALLER = b"\x28" + b"\xff" * 9 + b"\x01"  # ConfigProto: inter_op_parallelism_threads: -1
_VIEW = 3  # the kind of `TF_TString` that points to bytes that it does not own
_TSTRING_BYTES = 24
_NO_ELEMENTS = (ctypes.c_int64 * 1)(0)


class SessionError(RuntimeError):
    """An error of TensorFlow, with its message.

    Attributes:
        code: int, numbered as in gRPC.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class UnreadableTensorError(SessionError):
    """A serialized `TensorProto` that TensorFlow can't read.

    Attributes:
        name: of the graph's tensor for which it was sent.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(3, message)
        self.name = name


class _Output(ctypes.Structure):
    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_char_p),
        ("length", ctypes.c_size_t),
        ("deallocator", ctypes.c_void_p),
    ]


@dataclass(frozen=True)
class Strings:
    """An array of strings of bytes without a Python object each, e.g. those of an Arrow column.

    Attributes:
        data: a buffer with their bytes.
        starts: int `[...]`, where each begins.
        sizes: int `[...]`, the number of its bytes.
    """

    data: Any
    starts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Strings":
        """An array of bytes."""
        flat: Sequence[bytes] = values.ravel().tolist()
        sizes = np.fromiter(map(len, flat), np.int64, len(flat)).reshape(values.shape)
        return cls(b"".join(flat), (np.cumsum(sizes) - sizes.ravel()).reshape(values.shape), sizes)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows: slice) -> "Strings":
        return Strings(self.data, self.starts[rows], self.sizes[rows])

    def views(self) -> np.ndarray:
        """A `TF_TString` for each, `[..., 3]`: size and kind, address, 8 unused bytes."""
        views = np.zeros((*self.starts.shape, 3), np.uint64)
        views[..., 0] = (self.sizes.astype(np.uint64) << np.uint64(2)) | np.uint64(_VIEW)
        start = np.frombuffer(self.data or b"\0", np.uint8).ctypes.data
        views[..., 1] = np.uint64(start) + self.starts.astype(np.uint64)
        return views


class CSession:
    """A loaded SavedModel. `run` may be called from many threads at a time.

    Args:
        path: the version's folder.
        in_caller: whether the thread that calls `run` also runs all operations. For small requests
            this is faster than handing each operation to another thread. Defaults to False.

    Raises:
        SessionError: the SavedModel can't be loaded.
    """

    def __init__(self, path: str | Path, in_caller: bool = False) -> None:
        lib = _library()
        self._graph = ctypes.c_void_p(lib.TF_NewGraph())
        options = ctypes.c_void_p(lib.TF_NewSessionOptions())
        tags = (ctypes.c_char_p * 1)(b"serve")
        with _Status() as status:
            if in_caller:
                lib.TF_SetConfig(options, _IN_CALLER, len(_IN_CALLER), status.pointer)
            session = lib.TF_LoadSessionFromSavedModel(
                options, None, str(path).encode(), tags, 1, self._graph, None, status.pointer
            )
            lib.TF_DeleteSessionOptions(options)
            if not session:
                lib.TF_DeleteGraph(self._graph)
            status.check()
        self._session = ctypes.c_void_p(session)
        self._found: dict[str, _Output] = {}
        weakref.finalize(self, _delete, self._session, self._graph)

    def run(
        self, inputs: Mapping[str, np.ndarray | Strings | bytes], outputs: Collection[str]
    ) -> dict[str, np.ndarray]:
        """Computes tensors of the graph from the given ones.

        Args:
            inputs: arrays by the tensors' names, e.g. "serving_default_user_id:0": float32, int32,
                int64, or object for strings of bytes; `Strings`; or serialized `TensorProto`s.
            outputs: names of tensors.

        Returns:
            Arrays by name; strings are arrays of objects.

        Raises:
            SessionError: there is no such tensor, or an operation of the graph failed.
            UnreadableTensorError: TensorFlow can't read a `TensorProto`.
        """
        lib = _library()
        alive: list[Strings] = []  # whose bytes the inputs' strings point to
        tensors: list[int] = []
        found = (ctypes.c_void_p * len(outputs))()
        try:
            with _Status() as status:
                for name, value in inputs.items():
                    if not isinstance(value, bytes):
                        tensors.append(_tensor(value, alive))
                        continue
                    tensors.append(lib.TF_AllocateTensor(1, _NO_ELEMENTS, 1, 0))
                    buffer = _Buffer(value, len(value), None)
                    lib.TF_TensorFromProto(ctypes.byref(buffer), tensors[-1], status.pointer)
                    if lib.TF_GetCode(status.pointer):
                        raise UnreadableTensorError(name, f"tensor parsing error: {name}")
                lib.TF_SessionRun(
                    self._session,
                    None,
                    self._outputs(inputs),
                    (ctypes.c_void_p * len(tensors))(*tensors),
                    len(tensors),
                    self._outputs(outputs),
                    found,
                    len(outputs),
                    None,
                    0,
                    None,
                    status.pointer,
                )
                status.check()
            return {name: _array(pointer) for name, pointer in zip(outputs, found, strict=True)}
        finally:
            for pointer in (*found, *tensors):
                if pointer:
                    lib.TF_DeleteTensor(pointer)

    def _outputs(self, names: Collection[str]) -> Any:
        return (_Output * len(names))(*(self._output(name) for name in names))

    def _output(self, name: str) -> _Output:
        if name not in self._found:
            operation, _, index = name.partition(":")
            pointer = _library().TF_GraphOperationByName(self._graph, operation.encode())
            if not pointer:
                raise SessionError(5, f"the graph has no tensor {name!r}")
            self._found[name] = _Output(pointer, int(index or 0))
        return self._found[name]


class _Status:
    """A `TF_Status` that is deleted after the call."""

    def __enter__(self) -> "_Status":
        self.pointer = ctypes.c_void_p(_library().TF_NewStatus())
        return self

    def __exit__(self, *_: object) -> None:
        _library().TF_DeleteStatus(self.pointer)

    def check(self) -> None:
        code = _library().TF_GetCode(self.pointer)
        if code:
            message = _library().TF_Message(self.pointer)
            raise SessionError(code, message.decode("utf-8", "replace"))


def _tensor(array: np.ndarray | Strings, alive: list[Strings]) -> int:
    """A new `TF_Tensor` with a copy of the array; strings are pointers to bytes in `alive`."""
    if isinstance(array, np.ndarray) and array.dtype == object:
        array = Strings.of(array)
    if isinstance(array, Strings):
        alive.append(array)
        dtype, found, shape = STRING, array.views(), array.starts.shape
    elif array.dtype in _DTYPES:
        dtype, found, shape = _DTYPES[array.dtype], np.ascontiguousarray(array), array.shape
    else:
        raise SessionError(3, f"arrays of {array.dtype} are not supported")
    lib = _library()
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    pointer: int = lib.TF_AllocateTensor(dtype, sizes, len(shape), found.nbytes)
    if found.nbytes:
        data = lib.TF_TensorData(ctypes.c_void_p(pointer))
        ctypes.memmove(data, found.ctypes.data, found.nbytes)
    return pointer


def _array(pointer: int) -> np.ndarray:
    """A copy of a `TF_Tensor`."""
    lib, tensor = _library(), ctypes.c_void_p(pointer)
    shape = [lib.TF_Dim(tensor, axis) for axis in range(lib.TF_NumDims(tensor))]
    data, dtype = lib.TF_TensorData(tensor), lib.TF_TensorType(tensor)
    if dtype == STRING:
        count = int(np.prod(shape))
        strings = (ctypes.c_void_p(data + _TSTRING_BYTES * at) for at in range(count))
        values = np.empty(count, object)
        values[:] = [
            ctypes.string_at(lib.TF_StringGetDataPointer(text), lib.TF_StringGetSize(text))
            for text in strings
        ]
        return values.reshape(shape)
    if dtype not in _NUMPY:
        raise SessionError(12, f"tensors of type {dtype} are not supported")
    size = lib.TF_TensorByteSize(tensor)
    return np.frombuffer(ctypes.string_at(data, size), _NUMPY[dtype]).reshape(shape)


def _delete(session: ctypes.c_void_p, graph: ctypes.c_void_p) -> None:
    lib = _library()
    with _Status() as status:
        lib.TF_CloseSession(session, status.pointer)
        lib.TF_DeleteSession(session, status.pointer)
    lib.TF_DeleteGraph(graph)


@functools.cache
def _library() -> Any:
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("TensorFlow is not installed; its library is needed")
    path = Path(spec.submodule_search_locations[0]) / "libtensorflow_cc.so.2"
    # Not RTLD_GLOBAL: its symbols would replace those of other libraries.
    without_gil, with_gil = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
    lib = SimpleNamespace()
    pointer, integer, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
    for name, result, arguments in (
        ("TF_NewGraph", pointer, []),
        ("TF_DeleteGraph", None, [pointer]),
        ("TF_NewSessionOptions", pointer, []),
        ("TF_DeleteSessionOptions", None, [pointer]),
        ("TF_NewStatus", pointer, []),
        ("TF_DeleteStatus", None, [pointer]),
        ("TF_GetCode", integer, [pointer]),
        ("TF_Message", ctypes.c_char_p, [pointer]),
        (
            "TF_LoadSessionFromSavedModel",
            pointer,
            [pointer, pointer, ctypes.c_char_p, pointer, integer, pointer, pointer, pointer],
        ),
        ("TF_CloseSession", None, [pointer, pointer]),
        ("TF_DeleteSession", None, [pointer, pointer]),
        ("TF_GraphOperationByName", pointer, [pointer, ctypes.c_char_p]),
        (
            "TF_SessionRun",
            None,
            [*[pointer] * 4, integer, *[pointer] * 2, integer, pointer, integer, *[pointer] * 2],
        ),
        ("TF_SetConfig", None, [pointer, ctypes.c_char_p, size, pointer]),
        ("TF_TensorFromProto", None, [pointer, pointer, pointer]),
        ("TF_AllocateTensor", pointer, [integer, pointer, integer, size]),
        ("TF_DeleteTensor", None, [pointer]),
        ("TF_TensorData", pointer, [pointer]),
        ("TF_TensorType", integer, [pointer]),
        ("TF_TensorByteSize", size, [pointer]),
        ("TF_NumDims", integer, [pointer]),
        ("TF_Dim", ctypes.c_int64, [pointer, integer]),
        ("TF_StringGetDataPointer", pointer, [pointer]),
        ("TF_StringGetSize", size, [pointer]),
    ):
        # These run without the interpreter's lock, so that other threads go on. The others take
        # microseconds, less than to release the lock and wait for it again.
        is_long = name in ("TF_LoadSessionFromSavedModel", "TF_SessionRun", "TF_DeleteSession")
        function = getattr(without_gil if is_long else with_gil, name)
        function.restype, function.argtypes = result, arguments
        setattr(lib, name, function)
    return lib
