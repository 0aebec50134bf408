"""What the first bytes and the name of a file say about its format."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from tfctr.config import ConfigError
from tfctr.data import files

PARQUET = b"PAR1"
BY_NAME = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
BY_NAME |= {".parquet": "parquet", ".pq": "parquet"}
SEPARATORS = {".csv": ",", ".tsv": "\t"}  # of files with these extensions

REWRITE = "write it as CSV, JSON Lines or Parquet"
REPACK = "unpack it, or pack it with gzip"
NOT_READ = {
    b"PK\x03\x04": ("a zip archive or a spreadsheet", f"name an archive .zip, or {REWRITE}"),
    b"ARROW1": ("Arrow or Feather", REWRITE),
    b"Obj\x01": ("Avro", REWRITE),
    b"ORC\x0a": ("ORC", REWRITE),
    b"ORC\x08": ("ORC", REWRITE),
    b"PARE": ("encrypted Parquet", REWRITE),
    b"SQLite format 3\0": ("an SQLite database", REWRITE),
    b"\x89HDF": ("HDF5", REWRITE),
    b"\xd0\xcf\x11\xe0": ("a spreadsheet", REWRITE),
    b"\x80\x04\x95": ("a Python pickle", REWRITE),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", REPACK),
    b"\xfd7zXZ\0": ("packed with xz", REPACK),
    b"\x04\x22\x4d\x18": ("packed with lz4", REPACK),
    b"BZh91AY&SY": ("packed with bzip2", REPACK),
    b"\xff\xfe": ("text in UTF-16", "save it in UTF-8"),
    b"\xfe\xff": ("text in UTF-16", "save it in UTF-8"),
}
TAR = slice(257, 262)  # holds "ustar"


def format_of(paths: Sequence[str], otherwise: str) -> tuple[str, tuple[str, ...]]:
    """The format of the files of one table, "csv", "jsonl" or "parquet", and its files.

    Parquet begins with bytes of its own. Kinds of text differ by the file's extension, or are what
    the config says. Empty files, which Spark writes for parts without rows, are left out.

    Args:
        paths: of the files; `.gz` after an extension is skipped.
        otherwise: format of files whose extension says nothing.

    Raises:
        ConfigError: a file is of a format that is not read, or the files are of several.
    """
    found: dict[str, list[str]] = {}
    for path in paths:
        if kind := _format(path, otherwise):
            found.setdefault(kind, []).append(path)
    if not found:
        raise ConfigError(f"{paths[0]}: empty")
    if len(found) > 1:
        shown = " and ".join(f"{of_kind[0]} ({kind})" for kind, of_kind in found.items())
        raise ConfigError(
            f"source: the files of one table are of one format, found {shown}; name those of one, "
            'as "*.parquet"'
        )
    ((kind, of_kind),) = found.items()
    return kind, tuple(of_kind)


def _format(path: str, otherwise: str) -> str:
    """Empty if the file is."""
    try:
        start = files.start(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    by_name = BY_NAME.get(extension(path), otherwise)
    if start.startswith(PARQUET) or by_name == "parquet":
        return "parquet"
    for sign, (what, way_out) in NOT_READ.items():
        if start.startswith(sign):
            raise ConfigError(f"{path}: {what}, which is not read; {way_out}")
    if start[TAR] == b"ustar":
        raise ConfigError(f"{path}: a tar archive, which is not read; unpack it")
    if start.count(b"\0") > len(start) // 4:  # a few may be of a bad row
        raise ConfigError(f"{path}: no text in UTF-8, since it is full of zero bytes; {REWRITE}")
    if by_name == "jsonl" and re.match(rb"\s*\[\s*\{", start.removeprefix(files.BOM)):
        raise ConfigError(f"{path}: one JSON list; write one object a line, as jq -c '.[]' does")
    return by_name if start else ""


def extension(path: str) -> str:
    """In small letters, without that of gzip: `.csv` of `log.CSV.gz`."""
    return PurePosixPath(path.lower().removesuffix(".gz")).suffix
