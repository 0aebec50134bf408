import functools
import gzip
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tfctr.config import ConfigError
from tfctr.data import files

# The same bytes in every process: they are in the tests' names.
packed = functools.partial(gzip.compress, mtime=0)


def write(folder, *names, content=b"a\n1\n"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


# --- what a path names ----------------------------------------------------------------------------

SPARK = (
    *("day=1/part-0.csv", "day=1/part-1.csv", "day=1/_SUCCESS", "day=1/.part-0.csv.crc"),
    *("day=2/part-0.csv", "day=2/part-0.crc", "_temporary/part-9.csv", "notes.csv"),
)


@pytest.mark.parametrize("prefix", ["", "file://"])
@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("", ["day=1/part-0.csv", "day=1/part-1.csv", "day=2/part-0.csv", "notes.csv"]),
        ("day=1", ["day=1/part-0.csv", "day=1/part-1.csv"]),
        ("day=*", ["day=1/part-0.csv", "day=1/part-1.csv", "day=2/part-0.csv"]),
        ("day=*/part-0.csv", ["day=1/part-0.csv", "day=2/part-0.csv"]),
        ("day=[2-3]/*", ["day=2/part-0.csv"]),
        ("day=?/part-[!0].csv", ["day=1/part-1.csv"]),
        ("*.csv", ["notes.csv"]),
        ("*", ["notes.csv"]),
        ("day=[1]/../*.csv", []),
        ("day=*/*", ["day=1/part-0.csv", "day=1/part-1.csv", "day=2/part-0.csv"]),
        ("**/*-0.csv", ["day=1/part-0.csv", "day=2/part-0.csv"]),
        ("**/_SUCCESS", ["day=1/_SUCCESS"]),
        ("_temporary/*", ["_temporary/part-9.csv"]),
        ("*/*.crc", ["day=2/part-0.crc"]),
        ("day=3", []),
        ("day=3/*", []),
        ("*.parquet", []),
    ],
)
def test_folders_and_globs_name_data_files(tmp_path, prefix, pattern, found):
    write(tmp_path, *SPARK)
    assert files.matching(f"{prefix}{tmp_path}/{pattern}") == [
        f"{prefix}{tmp_path}/{name}" for name in found
    ]


def test_a_folder_that_patterns_are_relative_to_is_no_pattern(tmp_path, monkeypatch):
    folder = tmp_path / "my [1] *"
    write(folder, "a[1].csv", "a1.csv", "b.csv")
    found = [files.matching(name, str(folder)) for name in ("a[1].csv", "a?.csv", "")]
    assert found == [
        [f"{folder}/a[1].csv"],
        [f"{folder}/a1.csv"],
        [f"{folder}/{name}" for name in ("a1.csv", "a[1].csv", "b.csv")],
    ]
    monkeypatch.chdir(folder)
    assert files.matching("b*.csv") == files.matching("./b.csv") == ["b.csv"]


def test_a_uri_has_escapes_and_a_path_has_none(tmp_path):
    write(tmp_path, "day=a%2Fb c/log.csv", content=b"a\n1\n")
    (local,), (uri,) = files.matching(str(tmp_path)), files.matching(f"file://{tmp_path}")
    assert local == f"{tmp_path}/day=a%2Fb c/log.csv"
    assert uri == f"file://{tmp_path}/day=a%252Fb%20c/log.csv"
    assert files.start(local) == files.start(uri) == b"a\n1\n"


def test_a_glob_that_fits_a_marker_and_folders_names_the_files_in_them(tmp_path):
    write(tmp_path, "_SUCCESS", "day=1/0.csv", "day=1/_SUCCESS", "day=2/a/0.csv", "_old/0.csv")
    names = ["day=1/0.csv", "day=2/a/0.csv"]
    assert files.matching(f"{tmp_path}/*") == [f"{tmp_path}/{name}" for name in names]


def test_files_are_not_read_twice_through_links(tmp_path):
    write(tmp_path, "day=1/part-0.csv", "day=2/part-0.csv")
    (tmp_path / "latest").symlink_to("day=2")
    (tmp_path / "loop").symlink_to(".")
    names = ["day=1/part-0.csv", "day=2/part-0.csv"]
    assert files.matching(str(tmp_path)) == [f"{tmp_path}/{name}" for name in names]


@pytest.mark.skipif(os.getuid() == 0, reason="root may list every folder")
@pytest.mark.parametrize("pattern", ["", "*/x.csv", "**/*.csv", "?"])
def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, pattern):
    write(tmp_path, "a/x.csv", "b/x.csv")
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(ConfigError, match=rf": cannot be listed: .*'{tmp_path}/b'"):
            files.matching(f"{tmp_path}/{pattern}")
    finally:
        (tmp_path / "b").chmod(0o755)


def test_a_glob_that_is_none_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"^a\*\*/x\.csv: Invalid pattern: '\*\*' can only be"):
        files.matching(f"{tmp_path}/a**/x.csv")


@pytest.mark.parametrize("uri", ["gs://bucket/a b.csv", "gcs2://bucket/log.csv"])
def test_a_uri_that_is_none_is_named(uri):
    with pytest.raises(ConfigError, match=f"^{uri}: "):
        files.matching(uri)


# --- archives -------------------------------------------------------------------------------------


def archive(path, *names, content=b"a\n1\n"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name in names:
            opened.writestr(name, content)
    return str(path)


def test_the_one_file_of_an_archive_is_read(tmp_path):
    path = archive(tmp_path / "logs.zip", "logs/", "logs/log.csv", "__MACOSX/logs/._log.csv")
    assert files.matching(path) == files.matching(str(tmp_path)) == [f"{path}!logs/log.csv"]
    assert files.start(f"{path}!logs/log.csv") == b"a\n1\n"


def test_several_files_of_an_archive_are_named(tmp_path):
    path = archive(tmp_path / "logs.zip", "in/2.csv", "in/1.csv", "users.csv")
    with pytest.raises(ConfigError) as error:
        files.matching(path)
    assert str(error.value) == (
        f"{path}: holds 3 files, in/1.csv, in/2.csv, users.csv, where one is needed; name the "
        "files of one table, as logs.zip!in/1.csv"
    )
    assert files.matching(f"{path}!users.csv") == [f"{path}!users.csv"]
    assert files.matching(f"{path}!in/*.csv") == [f"{path}!in/1.csv", f"{path}!in/2.csv"]
    with pytest.raises(ConfigError, match=r"no file 'log\.csv' in it; there are: in/1\.csv, in/2"):
        files.matching(f"{path}!log.csv")
    assert files.matching(f"{tmp_path}/none.zip!log.csv") == []


def test_an_archive_that_cannot_be_read_is_named(tmp_path):
    path = archive(tmp_path / "empty.zip", "folder/")
    with pytest.raises(ConfigError, match=r"holds 0 files, none, where one is needed"):
        files.matching(path)
    whole = (tmp_path / "empty.zip").read_bytes()
    for content in (b"a\n1\n", whole[: len(whole) // 2], b""):
        (tmp_path / "cut.zip").write_bytes(content)
        with pytest.raises(ConfigError, match=r"cut\.zip: not a zip archive, or cut off"):
            files.matching(f"{tmp_path}/cut.zip")
    packed = bytearray((tmp_path / archive(tmp_path / "a.zip", "a.csv")).read_bytes())
    for place in (6, packed.index(b"PK\x01\x02") + 8):
        packed[place] |= 1  # encrypted
    (tmp_path / "secret.zip").write_bytes(packed)
    with pytest.raises(ConfigError, match=r"secret\.zip: .* encrypted.*; unpack it"):
        files.matching(f"{tmp_path}/secret.zip")


# --- packed files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz"])
def test_the_first_bytes_say_whether_a_file_is_packed(tmp_path, name):
    path = tmp_path / name
    for content in (
        b"a\n1\n",
        packed(b"a\n1\n"),
        packed(b"a\n") + packed(b"1\n"),
    ):
        path.write_bytes(content)
        assert files.is_packed(str(path)) == (content != b"a\n1\n")
        assert files.read_lines(str(path), 0, files.END) == b"a\n1\n"
    for content in (b"", b"a"):
        path.write_bytes(content)
        assert not files.is_packed(str(path))
        assert files.start(str(path)) == content


def test_a_packed_file_in_an_archive_is_unpacked(tmp_path):
    path = archive(tmp_path / "logs.zip", "log.csv.gz", content=packed(b"a\n1\n"))
    assert files.is_packed(f"{path}!log.csv.gz")
    assert files.start(f"{path}!log.csv.gz") == b"a\n1\n"


@pytest.mark.parametrize("change", [lambda c: c[:-9], lambda c: c[:40] + b"x" * 9 + c[49:]])
def test_a_packed_file_that_is_damaged_is_named(tmp_path, change):
    content = b"".join(b"%d\n" % (i**5) for i in range(1000))
    (tmp_path / "log.csv.gz").write_bytes(change(packed(content)))
    with pytest.raises(ConfigError, match=r"log\.csv\.gz: damaged or cut off: .*; copy it again"):
        files.read_lines(f"{tmp_path}/log.csv.gz", 0, files.END)


def test_a_folder_with_an_exclamation_mark_is_no_archive(tmp_path):
    (tmp_path / "wow!").mkdir()
    (tmp_path / "wow!" / "log.csv").write_bytes(b"a\n1\n")
    assert files.read(f"{tmp_path}/wow!/log.csv") == b"a\n1\n"


def test_a_file_beside_us_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files.write("page.html", b"text")
    assert (tmp_path / "page.html").read_bytes() == b"text"


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = f"{tmp_path}/folder/file"
    files.write(path, b"old")
    with pytest.raises(TypeError):
        files.write(path, b"new", "not bytes")
    assert files.read(path) == b"old"


def test_arrays_of_any_name_are_kept_and_read_by_name(tmp_path: Path) -> None:
    path = str(tmp_path / "arrays.npz")
    arrays = {"file": np.arange(3), "a b": np.ones((2, 2), np.float32), "empty": np.zeros(0)}
    files.write_arrays(path, arrays)
    found = files.read_arrays(path)
    assert [*found] == [*arrays]
    for name, values in arrays.items():
        np.testing.assert_array_equal(found[name], values, strict=True)
    assert [*files.read_arrays(path, ["a b"])] == ["a b"]
    files.write_arrays(path, arrays | {"large": np.arange(10**5)})
    np.testing.assert_array_equal(files.read_arrays(path, ["large"])["large"], np.arange(10**5))
    files.write_arrays(path, {})
    assert files.read_arrays(path) == {}
