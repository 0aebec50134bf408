"""Files on local disks or in object stores, by path or URI; writes are atomic."""

import errno
import gzip
import io
import json
import os
import re
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import quote

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from tfctr.config import ConfigError

BOM = b"\xef\xbb\xbf"
NO_SPACE = os.strerror(errno.ENOSPC)  # in every error of a full disk
CHECKED = 64 << 20  # bytes; larger files are identified by their modification time
SMALL = 1 << 16  # bytes; a file that is read at once
END = 1 << 62  # of a file whose unpacked size is not known
GZIP = b"\x1f\x8b\x08"  # no text begins so: the second byte is neither ASCII nor UTF-8
WILDCARD = re.compile(r"[*?[]")
OPTIONS = re.compile(r"\?[a-z_]+=.*")  # of a URI, such as ?region=eu-west-1


def filesystem(path: str) -> tuple[fs.FileSystem, str]:
    """`gs://`, `s3://`, `hdfs://`, `file://`, or a local path.

    Raises:
        ConfigError: no file system has such a URI.
    """
    if "://" not in path:
        return fs.LocalFileSystem(), path
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(path)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{path}: {error}") from None
    return found


def split_member(path: str) -> tuple[str, str]:
    """`archive.zip!member` -> the archive and the member, which is empty for other files."""
    archive, mark, member = path.partition(".zip!")
    return (archive + ".zip", member) if mark else (path, "")


def matching(pattern: str, folder: str = "") -> list[str]:
    """The data files that a path, a URI or a glob names, sorted by name. Empty if none.

    A folder names all data files in it, at any depth, and so does a glob that fits folders only.
    `archive.zip` names the one data file in it, and `archive.zip!pattern` those that fit the
    pattern. Files and folders whose names begin with `_` or `.`, such as `_SUCCESS`, and checksums
    (`.crc`) are left out, unless the pattern names them so.

    Args:
        pattern: may hold `*`, `?`, `[ab]` and, for folders at any depth, `**`. A local file whose
            name is the pattern itself comes first.
        folder: that a local pattern is relative to.

    Raises:
        ConfigError: a folder cannot be listed; an archive is damaged, or holds no file or several.
    """
    archive, member = split_member(pattern)
    found: list[str] = []
    try:
        listed = _listed(archive, folder)
    except OSError as error:
        raise ConfigError(f"{archive}: cannot be listed: {error}") from None
    for path in listed:
        found += _members(path, member) if path.endswith(".zip") else [path]
    return found


def _listed(pattern: str, folder: str) -> list[str]:
    is_uri, options = "://" in pattern, ""
    if is_uri and (given := OPTIONS.search(pattern)):
        options = given[0]
        pattern = pattern.removesuffix(options)
    place, wild = pattern, ""
    wildcard = WILDCARD.search(pattern)
    if wildcard and (is_uri or not os.path.exists(PurePath(folder, pattern))):
        cut = pattern.rfind("/", 0, wildcard.start()) + 1
        place, wild = pattern[:cut], pattern[cut:]
    root = place if is_uri else str(PurePath(folder, place))
    system, inner = filesystem(root + options)
    kind = system.get_file_info(inner).type
    if kind == fs.FileType.File and not wild:
        return [root + options]
    if kind != fs.FileType.Directory:
        return []
    found = _below(fs.SubTreeFileSystem(inner, system), wild)
    if is_uri:
        names = [quote(name, safe="/=") for name in found]
        return [f"{root.rstrip('/')}/{name}{options}" for name in names]
    paths = [str(PurePath(root, name)) for name in found]
    # A link to a folder, such as `latest`, may name the same files again, or itself.
    first: dict[PurePath, str] = {}
    for path in paths:
        first.setdefault(Path(path).parent.resolve() / Path(path).name, path)
    return list(first.values())


def _below(tree: fs.FileSystem, pattern: str) -> list[str]:
    """The data files in a folder that fit a pattern, or that are in folders that fit it.

    Arrow lists: fsspec's own `glob` leaves out folders that it cannot list, without a word.
    """
    from fsspec.utils import glob_translate  # here: the client image lacks it

    try:
        fits = re.compile(glob_translate(pattern or "**")).match
    except (ValueError, re.error) as error:
        raise ConfigError(f"{pattern}: {error}") from None
    is_deep = not pattern or "/" in pattern or "**" in pattern
    infos = tree.get_file_info(fs.FileSelector("", recursive=is_deep))
    found = [info for info in infos if fits(info.path)]
    if not any(_is_data(info, pattern) for info in found):  # as for day=*, which fits folders only
        folders = [info.path for info in found if info.type == fs.FileType.Directory]
        inside = (tree.get_file_info(fs.FileSelector(path, recursive=True)) for path in folders)
        found = [info for infos in inside for info in infos]
    return sorted({info.path for info in found if _is_data(info, pattern)})


def _is_data(info: fs.FileInfo, pattern: str) -> bool:
    return info.type == fs.FileType.File and _is_named(info.path, pattern)


def _is_named(path: str, pattern: str) -> bool:
    """False for what is left out, unless the pattern names it."""
    named = [part for part in pattern.split("/") if part.startswith(("_", "."))]
    for part in path.split("/"):
        if part.startswith(("_", ".")) and not any(fnmatch(part, wanted) for wanted in named):
            return False
    return not path.endswith(".crc") or pattern.endswith(".crc")


def _members(archive: str, pattern: str) -> list[str]:
    try:
        with _open_raw(archive) as file, zipfile.ZipFile(file) as opened:
            names = sorted(info.filename for info in opened.infolist() if not info.is_dir())
            there = [name for name in names if _is_named(name, pattern)]
            found = [n for n in there if not pattern or n == pattern or fnmatch(n, pattern)]
            for name in found:
                opened.open(name).close()
    except (zipfile.BadZipFile, pa.ArrowInvalid):  # the latter of less than 22 bytes
        raise ConfigError(f"{archive}: not a zip archive, or cut off; copy it again") from None
    except RuntimeError as error:  # encrypted, or packed in a way that Python does not know
        raise ConfigError(f"{archive}: {error}; unpack it") from None
    listed = ", ".join(there[:5] + (["..."] if len(there) > 5 else [])) or "none"
    if pattern and not found:
        raise ConfigError(f"{archive}: no file {pattern!r} in it; there are: {listed}")
    if not pattern and len(found) != 1:
        example = f"{PurePosixPath(archive).name}!{found[0] if found else 'NAME'}"
        raise ConfigError(
            f"{archive}: holds {len(found)} files, {listed}, where one is needed; name the files "
            f"of one table, as {example}"
        )
    return [f"{archive}!{name}" for name in found]


def size(path: str) -> int:
    """Bytes; of the unpacked content for `archive.zip!member`."""
    archive, member = split_member(path)
    system, inner = filesystem(archive)
    if not member:
        return int(system.get_file_info(inner).size)
    with system.open_input_file(inner) as file, zipfile.ZipFile(file) as opened:
        return opened.getinfo(member).file_size


def fingerprint(path: str) -> list[Any]:
    """Identifies a file's content: its name, with folders such as `day=2024-01-01`, its size and
    checksum, or, for a large file, its modification time. The copy of a small file has the same
    fingerprint."""
    system, inner = filesystem(path)
    info = system.get_file_info(inner)
    last = info.mtime_ns
    if info.size <= CHECKED:
        with system.open_input_stream(inner, compression=None) as file:
            last = google_crc32c.value(file.read())
    keys = [folder for folder in PurePosixPath(inner).parent.parts if "=" in folder]
    return ["/".join([*keys, info.base_name]), info.size, last]


@contextmanager
def open_to_read(path: str) -> Iterator[BinaryIO]:
    """A seekable file of a source, unpacked; `archive.zip!member` opens a member of a zip.

    Its first bytes say whether it is gzip, not its name: browsers and HTTP clients unpack a `.gz`
    file and keep the name, and other tools pack without one.

    Raises:
        ConfigError: the file is packed, and damaged or cut off.
    """
    try:
        with ExitStack() as stack:
            file: Any = stack.enter_context(_open_raw(path))
            if _begins_as_gzip(file):
                file = stack.enter_context(gzip.open(file))
            yield file
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{path}: damaged or cut off: {error}; copy it again") from None


@contextmanager
def _open_raw(path: str) -> Iterator[Any]:
    """The file, or the member of a zip, as it is: maybe packed."""
    archive, member = split_member(path)
    system, inner = filesystem(archive)
    with system.open_input_file(inner) as file:
        if not member:
            yield io.BufferedReader(file)  # Arrow's file has no `readline`
            return
        with zipfile.ZipFile(file) as unpacked, unpacked.open(member) as opened:
            yield opened


def _begins_as_gzip(file: Any) -> bool:
    return bool(file.peek(len(GZIP))[: len(GZIP)] == GZIP)


def is_packed(path: str) -> bool:
    """Whether a file of a source is gzip, by its first bytes."""
    with _open_raw(path) as file:
        return _begins_as_gzip(file)


def start(path: str) -> bytes:
    """The first 512 bytes of a file of a source, unpacked."""
    with open_to_read(path) as file:
        return file.read(512)


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


def write_arrays(path: str, arrays: Mapping[str, Any]) -> None:
    """Writes arrays by name as one file of NumPy's `.npz`; errors as for `write`.

    A name may be any text; `np.savez` takes no array named `file`.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(values), allow_pickle=False)
    write(path, content.getbuffer())


def read_arrays(path: str, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays that `write_arrays` wrote, or those of some names; the others are not read."""
    system, inner = filesystem(path)
    with system.open_input_file(inner) as file:
        # `zipfile` looks before the start of a file without arrays, which Arrow's do not allow.
        whole = file if file.size() > SMALL else io.BytesIO(file.read())
        with np.load(whole) as found:
            return {name: found[name] for name in (found.files if names is None else names)}


def delete_folder(path: str) -> None:
    """Deletes a folder with all that is in it."""
    system, inner = filesystem(path)
    system.delete_dir(inner)


def read(path: str) -> bytes:
    """The content of a file that we wrote, unpacked if its name ends in `.gz`: a TFRecord may begin
    with the bytes of gzip."""
    system, inner = filesystem(path)
    packed = "gzip" if inner.endswith(".gz") else None
    with system.open_input_stream(inner, compression=packed) as file:
        content: bytes = file.read()
    return content


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
