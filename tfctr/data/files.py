"""Files on local disks or in object stores, by path or URI; writes are atomic."""

import errno
import gzip
import io
import json
import os
import posixpath
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

BOM = b"\xef\xbb\xbf"
NO_SPACE = os.strerror(errno.ENOSPC)  # in every error of a full disk
CHECKED = 64 << 20  # bytes; larger files are identified by their modification time
END = 1 << 62  # of a file whose unpacked size is not known


def filesystem(path: str) -> tuple[fs.FileSystem, str]:
    """`gs://`, `s3://`, `hdfs://`, `file://`, or a local path."""
    return fs.FileSystem.from_uri(path) if "://" in path else (fs.LocalFileSystem(), path)


def split_member(path: str) -> tuple[str, str]:
    """`archive.zip!member` -> the archive and the member, which is empty for other files."""
    archive, mark, member = path.partition(".zip!")
    return (archive + ".zip", member) if mark else (path, "")


def matching(pattern: str) -> list[str]:
    """The files that a path or a glob (in its last part) names, sorted. Empty if none."""
    if "*" not in pattern:
        system, path = filesystem(pattern)
        return [pattern] if system.get_file_info(path).type == fs.FileType.File else []
    folder, _, name = pattern.rpartition("/")
    system, path = filesystem(folder or ".")
    found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(
        posixpath.join(folder, info.base_name)
        for info in found
        if info.type == fs.FileType.File and fnmatch(info.base_name, name)
    )


def size(path: str) -> int:
    """Bytes; of the unpacked content for `archive.zip!member`."""
    archive, member = split_member(path)
    system, inner = filesystem(archive)
    if not member:
        return int(system.get_file_info(inner).size)
    with system.open_input_file(inner) as file, zipfile.ZipFile(file) as opened:
        return opened.getinfo(member).file_size


def fingerprint(path: str) -> list[Any]:
    """Identifies a file's content: its name, size and checksum, or, for a large file, its
    modification time. The copy of a small file has the same fingerprint."""
    system, inner = filesystem(path)
    info = system.get_file_info(inner)
    last = info.mtime_ns
    if info.size <= CHECKED:
        with system.open_input_stream(inner, compression=None) as file:
            last = google_crc32c.value(file.read())
    return [info.base_name, info.size, last]


@contextmanager
def open_to_read(path: str) -> Iterator[BinaryIO]:
    """A seekable file; `archive.zip!member` opens a member of a zip, `.gz` is unpacked."""
    archive, member = split_member(path)
    system, inner = filesystem(archive)
    opened: Any
    with system.open_input_file(inner) as file:
        if member:
            with zipfile.ZipFile(file) as unpacked, unpacked.open(member) as opened:
                yield opened
        elif PurePosixPath(inner).suffix == ".gz":
            with gzip.open(file) as opened:
                yield opened
        else:
            yield io.BufferedReader(file)  # Arrow's file has no `readline`


def write(path: str, *content: bytes | memoryview) -> None:
    """Writes a file, in parts, under a temporary name and renames it, so it can be retried.

    Raises:
        OSError: the file cannot be written; no part of it stays.
    """
    system, inner = filesystem(path)
    system.create_dir(str(PurePosixPath(inner).parent), recursive=True)
    temporary = f"{inner}.{uuid.uuid4().hex[:8]}.part"  # a piece may be tried twice at once
    try:
        with system.open_output_stream(temporary, compression=None) as file:
            for part in content:
                file.write(part)
        system.move(temporary, inner)
    except OSError as error:
        if system.get_file_info(temporary).is_file:
            system.delete_file(temporary)
        if NO_SPACE in str(error):  # Arrow does not name the file
            raise OSError(errno.ENOSPC, NO_SPACE, path) from None
        raise


def write_parquet(path: str, columns: Mapping[str, np.ndarray]) -> None:
    """Writes columns `[N]` by name as one Parquet file; errors as for `write`."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(columns)), sink)
    write(path, sink.getvalue())


def read(path: str) -> bytes:
    with open_to_read(path) as file:
        return file.read()


def read_lines(path: str, start: int, stop: int, has_header: bool = False) -> bytes:
    """The lines whose first byte lies in `[start, stop)`, ends as `\\n`; no header, no BOM."""
    with open_to_read(path) as file:
        if start > 0:
            file.seek(start - 1)
            start += len(file.readline()) - 1
        elif has_header:
            start = len(file.readline())
        data = file.read(-1 if stop == END else max(stop - start, 0))
        if data and not data.endswith(b"\n"):
            data += file.readline()
    if start == 0:
        data = data.removeprefix(BOM)
    return data.replace(b"\r\n", b"\n")


def read_json(path: str) -> Any:
    return json.loads(read(path))


def compress(content: Iterable[bytes | memoryview]) -> bytes:
    """Gzip without a time stamp: equal content, equal files."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=4, mtime=0) as file:
        for part in content:
            file.write(part)
    return packed.getvalue()
