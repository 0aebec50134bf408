"""Fetching and verifying archives, against a server on this machine only."""

import hashlib
import http.server
import logging
import os
import pathlib
import socket
import threading
import zipfile
from collections.abc import Iterator

import pytest

from tfctr.config import HOME_VARIABLE, data_home
from tfctr.data.archives import ARCHIVES, Archive, DownloadError, download

MEMBERS = {"tiny/README": b"terms\n", "tiny/ratings.dat": b"1::2::3::4\n" * 1_000}


class Server:
    """Serves one body at any address, announcing `announced` bytes."""

    def __init__(self) -> None:
        self.body = b""
        self.announced: int | None = None
        self.status = 200
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                self.send_response(outer.status)
                length = len(outer.body) if outer.announced is None else outer.announced
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(outer.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/tiny.zip"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> Iterator[Server]:
    """A server of the archive "tiny", which `download` knows meanwhile."""
    server = Server()
    packed = tmp_path / "packed.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in MEMBERS.items():
            archive.writestr(member, content)
    server.body = packed.read_bytes()
    checksums = {member: hashlib.sha256(content).hexdigest() for member, content in MEMBERS.items()}
    monkeypatch.setitem(ARCHIVES, "tiny", Archive("tiny.zip", server.url, checksums))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("TFCTR_DATA_HOME", str(tmp_path / "home"))
    thread = threading.Thread(target=server.http.serve_forever, args=[0.02])
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


def left_in(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_data_home_is_the_variable_or_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFCTR_DATA_HOME", "~/data")
    assert data_home() == pathlib.Path.home() / "data"
    monkeypatch.delenv("TFCTR_DATA_HOME")
    assert data_home() == pathlib.Path.home() / ".cache" / "tfctr"


def test_an_archive_is_fetched_once_verified_and_kept(
    server: Server, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="tfctr"):
        path = download("tiny")
    assert path == data_home() / "tiny.zip"
    assert left_in(data_home()) == ["tiny.zip"]
    assert path.read_bytes() == server.body
    assert "100%" in capsys.readouterr().err
    assert "forbids redistribution" in caplog.text
    assert download("tiny") == path
    assert server.requests == 1


def test_another_directory_can_be_named(server: Server, tmp_path: pathlib.Path) -> None:
    assert download("tiny", tmp_path / "there") == tmp_path / "there" / "tiny.zip"
    assert not data_home().exists()


def test_a_repacked_archive_is_accepted(server: Server) -> None:
    data_home().mkdir()
    with zipfile.ZipFile(data_home() / "tiny.zip", "w", zipfile.ZIP_STORED) as archive:
        for member, content in MEMBERS.items():
            archive.writestr(member, content)
        archive.writestr("tiny/notes", "more")
    download("tiny")
    assert server.requests == 0


@pytest.mark.parametrize("local", [True, False])
def test_a_changed_member_is_named_with_both_checksums(
    server: Server, tmp_path: pathlib.Path, local: bool
) -> None:
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(changed, "w") as archive:
        archive.writestr("tiny/README", MEMBERS["tiny/README"])
        archive.writestr("tiny/ratings.dat", b"1::2::5::4\n")
    server.body = changed.read_bytes()
    data_home().mkdir()
    if local:
        changed.rename(data_home() / "tiny.zip")
    with pytest.raises(DownloadError, match=r"ratings\.dat") as failure:
        download("tiny")
    message = str(failure.value)
    for part in (
        "tiny.zip",
        hashlib.sha256(MEMBERS["tiny/ratings.dat"]).hexdigest(),
        hashlib.sha256(b"1::2::5::4\n").hexdigest(),
        "Delete" if local else server.url,
    ):
        assert part in message
    assert left_in(data_home()) == (["tiny.zip"] if local else [])


def test_a_missing_member_is_named(server: Server) -> None:
    data_home().mkdir()
    with zipfile.ZipFile(data_home() / "tiny.zip", "w") as archive:
        archive.writestr("tiny/README", MEMBERS["tiny/README"])
    with pytest.raises(DownloadError, match=r"tiny\.zip: no file tiny/ratings\.dat inside"):
        download("tiny")


@pytest.mark.parametrize("flip", [45, -10])
def test_a_corrupt_archive_is_not_kept(server: Server, flip: int) -> None:
    corrupt = bytearray(server.body)
    corrupt[flip] ^= 0xFF
    server.body = bytes(corrupt)
    with pytest.raises(DownloadError, match=r"tiny\.zip"):
        download("tiny")
    assert left_in(data_home()) == []


def test_a_page_in_place_of_an_archive_is_not_kept(server: Server) -> None:
    server.body = b"<html>please log in</html>"
    with pytest.raises(DownloadError, match="not a readable zip archive"):
        download("tiny")
    assert left_in(data_home()) == []


def test_a_truncated_download_leaves_nothing(server: Server) -> None:
    server.announced = len(server.body)
    server.body = server.body[:100]
    with pytest.raises(DownloadError, match=rf"100 bytes read, {server.announced - 100} more"):
        download("tiny")
    assert left_in(data_home()) == []


def test_a_missing_page_is_told_with_its_status(server: Server) -> None:
    server.status = 404
    with pytest.raises(DownloadError, match="404"):
        download("tiny")
    assert left_in(data_home()) == []


def test_offline_says_what_failed_and_what_to_do(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/tiny.zip"
    monkeypatch.setitem(ARCHIVES, "tiny", Archive("tiny.zip", url, {}))
    with pytest.raises(DownloadError) as failure:
        download("tiny")
    message = str(failure.value)
    for part in (
        url,
        "refused",
        f"Put the archive at {data_home() / 'tiny.zip'}",
        "TFCTR_DATA_HOME",
    ):
        assert part in message
    assert left_in(data_home()) == []


def test_a_folder_that_cannot_be_made_is_told(server: Server, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match=r"tiny\.zip: .*Not a directory"):
        download("tiny", tmp_path / "file" / "below")


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"movielens-100k.*movielens-1m.*Received: 'ml'"):
        download("ml")


@pytest.mark.parametrize("name", ["movielens-1m", "movielens-100k"])
def test_the_published_archives_pass(name: str) -> None:
    archive = ARCHIVES[name]
    if not os.environ.get(HOME_VARIABLE):
        pytest.skip("TFCTR_DATA_HOME is not set")
    if not (data_home() / archive.file).exists():
        pytest.skip(f"{archive.file} is not in TFCTR_DATA_HOME")
    assert zipfile.is_zipfile(download(name))
