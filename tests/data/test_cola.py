"""CoLA itself, and its download."""

import contextlib
import io
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from potstill.data import cola, download
from potstill.data.cola import COLA_FILES
from potstill.data.corpus import load_corpus
from potstill.errors import UserError
from tests.data.conftest import COUNTS, cola_lines, small_cola, write


@pytest.mark.cola
class TestRealCoLA:
    def test_it_is_read_whole_and_called_cola(self, cola_folder: Path) -> None:
        task = load_corpus(str(cola_folder))
        assert task.name == "CoLA"
        held = {name: (len(split), sum(split.labels)) for name, split in task.splits.items()}
        assert held == {"train": (8551, 6023), "dev": (527, 365), "ood": (516, 354)}

    def test_it_is_found_in_data(self, cola_folder: Path) -> None:
        Path("data").symlink_to(cola_folder)
        assert load_corpus("cola").name == "CoLA"
        task = load_corpus("auto")
        assert (task.name, task.reason) == ("CoLA", "CoLA is in data/")

    def test_short_of_a_sentence_it_is_not_cola(self, cola_folder: Path) -> None:
        Path("data/cola").mkdir(parents=True)
        for name in COLA_FILES.values():
            body = (cola_folder / name).read_bytes()
            write(f"data/cola/{name}", body[body.index(b"\n") + 1 :])
        for data in ("cola", "auto"):
            with pytest.raises(UserError, match=r"data/cola is not CoLA: in_domain_train\.tsv has"):
                load_corpus(data)
        assert load_corpus("data/cola").name != "cola"


@pytest.mark.usefixtures("offline")
def test_cola_with_neither_files_nor_network_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"CoLA is not in data/ .* put its three files into data/"):
        load_corpus("cola")
    assert not Path("data").exists()


def packed(folder: Path, left_out: str = "", counts: tuple[int, int] = COUNTS["train"]) -> bytes:
    """CoLA's archive, made of a folder's files; counts: of the train file in it."""
    (folder / COLA_FILES["train"]).write_bytes(cola_lines(*counts))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            if file.name != left_out:
                archive.write(file, f"cola_public/raw/{file.name}")
    return buffer.getvalue()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """A local web site that CoLA is downloaded from; call it with the body that it should serve."""
    served = [b""]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(served[0])))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(served[0])

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(cola, "COLA_URL", f"http://127.0.0.1:{server.server_port}/cola.zip")
    monkeypatch.setattr(cola, "COLA_COUNTS", COUNTS)
    yield lambda body: served.__setitem__(0, body)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("data", ["cola", "auto"])
def test_cola_is_downloaded_once(data: str, site: Callable[[bytes], None]) -> None:
    site(packed(small_cola(Path("original"))))
    task = load_corpus(data)
    assert (task.name, task.path) == ("CoLA", "data/cola")
    site(b"nothing more")
    assert load_corpus(data).splits == task.splits
    assert [file.name for file in Path("data").iterdir()] == ["cola"]


def with_a_wrong_byte(archive: bytes) -> bytes:
    middle = len(archive) // 3
    return archive[:middle] + bytes([archive[middle] ^ 255]) + archive[middle + 1 :]


UNFIT = {
    "cut off": (lambda folder: packed(folder)[:-40], "could not be downloaded .* try again"),
    "damaged": (lambda folder: with_a_wrong_byte(packed(folder)), "could not be downloaded"),
    "a web page": (lambda folder: b"<html>moved</html>", "could not be downloaded"),
    "a file short": (
        lambda folder: packed(folder, left_out=COLA_FILES["ood"]),
        r"could not be downloaded .*out_of_domain_dev\.tsv",
    ),
    "too large": (lambda folder: bytes(10_000_001), "more than 10000000 bytes"),
    "other data": (lambda folder: packed(folder, counts=(4, 2)), "has 4 sentences, 2 of them"),
}


@pytest.mark.parametrize(("served", "words"), UNFIT.values(), ids=UNFIT)
def test_a_download_that_is_not_cola_leaves_nothing(
    served: Callable[[Path], bytes], words: str, site: Callable[[bytes], None]
) -> None:
    site(served(small_cola(Path("original"))))
    with pytest.raises(UserError, match=words):
        load_corpus("cola")
    assert not Path("data").exists() or not any(Path("data").iterdir())


def test_auto_falls_back_where_the_site_sends_something_else(
    site: Callable[[bytes], None],
) -> None:
    """As the login page of a hotel's network."""
    site(b"<html>please log in</html>")
    corpus = load_corpus("auto")
    assert (corpus.name, Path("data").exists()) == ("MiniCoLA", False)
    assert "CoLA could not be downloaded" in corpus.reason
    with pytest.raises(UserError, match="CoLA could not be downloaded"):
        load_corpus("cola")


def test_a_site_that_sends_a_byte_now_and_then_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not over.wait(0.1):
                    self.wfile.write(b"x")

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer within 1 s"):
        download.fetch(f"http://127.0.0.1:{server.server_port}/", limit=10**6, seconds=1)
    assert time.monotonic() - started < 3
    over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_small_archive_of_a_large_file_is_not_unpacked(site: Callable[[bytes], None]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in COLA_FILES.values():
            archive.writestr(f"cola_public/raw/{name}", bytes(10_000_001))
    site(buffer.getvalue())
    with pytest.raises(UserError, match="has more than 10000000 bytes"):
        load_corpus("cola")


def test_names_in_an_archive_lead_nowhere(site: Callable[[bytes], None]) -> None:
    original = small_cola(Path("original"))
    buffer = io.BytesIO(packed(original))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("../../outside.txt", "x")
        archive.writestr("/outside.txt", "x")
        archive.writestr("cola_public/raw/../../../outside.txt", "x")
    site(buffer.getvalue())
    load_corpus("cola")
    assert {file.name for file in Path("data/cola").iterdir()} == {
        *COLA_FILES.values(),
        "manifest.json",
    }
    assert not list(Path().rglob("outside*")) and not Path("/outside.txt").exists()


def test_a_download_replaces_no_folder_of_the_user(site: Callable[[bytes], None]) -> None:
    Path("data/cola").mkdir(parents=True)
    notes = write("data/cola/notes.txt", "mine")
    site(packed(small_cola(Path("original"))))
    with pytest.raises(UserError, match=r"data/cola is there, but holds no in_domain_train\.tsv"):
        load_corpus("cola")
    assert notes.read_text() == "mine"


@pytest.mark.parametrize("answer", [b"", b"garbage\r\n\r\n"], ids=["silence", "garbage"])
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_host_without_a_proper_answer_is_unreachable(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def reply() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)
                over.wait(10)

        over = threading.Event()
        thread = threading.Thread(target=reply)
        thread.start()
        assert not download.reachable(f"http://127.0.0.1:{server.getsockname()[1]}/", 0.5)
        over.set()
        thread.join()
