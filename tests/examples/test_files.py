"""Published files are found, and downloaded whole or not at all."""

import hashlib
import importlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

files = importlib.import_module("files")

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server() -> Iterator[str]:
    """A web server on this machine that serves ``/good``, ``/wrong`` and ``/short``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"/good": CONTENT, "/wrong": CONTENT[::-1], "/short": CONTENT[:1000]}.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(body or CONTENT)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def published(*addresses: str):
    return files.File("content.bin", hashlib.sha256(CONTENT).hexdigest(), addresses)


def everything_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_file_is_downloaded_once_and_then_read_from_the_cache(cache: Path, server: str) -> None:
    (path,) = files.fetch("set", [published(f"{server}/good")])
    assert path.read_bytes() == CONTENT
    assert everything_in(cache) == [path] == [cache / "set" / "content.bin"]
    assert files.fetch("set", [published(f"{server}/gone")]) == [path]


def test_an_address_may_be_that_of_a_file(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    (path,) = files.fetch("set", [published((tmp_path / "source").as_uri())])
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("gone", "404"),
        ("wrong", "SHA-256"),
        ("short", f"ended after 1000 of {len(CONTENT)} bytes"),
    ],
)
def test_a_failed_download_leaves_nothing_and_says_what_to_do(cache: Path, server: str, page: str, reason: str) -> None:
    with pytest.raises(files.DatasetError, match=reason) as caught:
        files.fetch("set", [published(f"{server}/{page}")])
    for part in (f"{server}/{page} as content.bin", str(cache / "set"), "FNN_DATA"):
        assert part in str(caught.value)
    assert everything_in(cache) == []


def test_the_next_address_is_tried_when_one_fails(cache: Path, server: str) -> None:
    pages = ("gone", "wrong", "short", "good")
    (path,) = files.fetch("set", [published(*(f"{server}/{page}" for page in pages))])
    assert path.read_bytes() == CONTENT


def test_an_error_lists_the_files_that_are_still_missing(cache: Path, server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}"
    pages = {"one": f"{server}/good", "two": f"{refused}/two", "three": f"{refused}/three"}
    with pytest.raises(files.DatasetError, match="Connection refused") as caught:
        files.fetch("set", [published(page)._replace(name=name) for name, page in pages.items()])
    message = str(caught.value)
    assert f"{refused}/two as two" in message
    assert f"{refused}/three as three" in message
    assert "as one" not in message
    assert everything_in(cache) == [cache / "set" / "one"]


def test_an_interrupted_download_leaves_nothing(cache: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        assert everything_in(cache) != []
        raise KeyboardInterrupt

    monkeypatch.setattr(files.tqdm, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.fetch("set", [published(f"{server}/good")])
    assert everything_in(cache) == []


def test_a_cache_that_cannot_be_made_is_told_with_the_rest(cache: Path, server: str) -> None:
    cache.parent.mkdir()
    cache.write_text("a file where the folder should be")
    with pytest.raises(files.DatasetError, match="could not be downloaded"):
        files.fetch("set", [published(f"{server}/good")])


def test_a_changed_file_in_the_cache_is_named(cache: Path) -> None:
    path = cache / "set" / "content.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(files.DatasetError, match=r"content.bin: its SHA-256 is .*delete the file"):
        files.fetch("set", [published()])


def test_the_data_folder_comes_before_the_cache_and_may_be_packed_otherwise(given: Path, cache: Path) -> None:
    for folder, content in ((given, b"the user's own"), (cache, CONTENT)):
        (folder / "set").mkdir(parents=True)
        (folder / "set" / "content.bin").write_bytes(content)
    assert files.locate("set", published()) == given / "set" / "content.bin"


def test_the_cache_is_in_the_home_folder_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert files.cache_folder() == tmp_path / ".cache" / "fnn"
