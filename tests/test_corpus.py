"""Labelled sentences as users bring them: every format, CoLA itself, and its download."""

import io
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from potstill import UserError, corpus, network
from potstill.corpus import COLA_LABELS, load_corpus, load_evaluation

COLA = Path(__file__).parents[2] / "shared" / "cola"
# Sentences and acceptable ones of each file in `small_cola`.
COUNTS = {"train": (4, 3), "dev": (3, 2), "ood": (2, 1)}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works in a folder of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "reachable", lambda url: False)


def cola_lines(sentences: int, acceptable: int) -> bytes:
    lines = (f"gj04\t{int(i < acceptable)}\t\tSentence {i}." for i in range(sentences))
    return "\n".join(lines).encode()


def small_cola(folder: Path) -> Path:
    """CoLA's three files, with `COUNTS`."""
    folder.mkdir(parents=True)
    for split, counts in COUNTS.items():
        (folder / corpus.COLA_FILES[split]).write_bytes(cola_lines(*counts))
    return folder


def write(name: str, text: str | bytes) -> Path:
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return Path(name)


def sentences_of(file: Path, **columns: str) -> list[tuple[str, str]]:
    """(sentence, label) pairs of a file, through `load_evaluation`, which takes it whole."""
    labels = ("0", "1", "good", "bad", "so-so")
    split = load_evaluation(str(file), labels, **columns).splits[file.stem]
    return [(s, labels[i]) for s, i in zip(split.sentences, split.labels, strict=True)]


FOUR = 'a\t1\t\t"Go, he said.\nb\t0\t*\tGo "he" said".\n'
EXPECTED = [('"Go, he said.', "1"), ('Go "he" said".', "0")]


@pytest.mark.parametrize(
    "body",
    [
        FOUR,
        'a\t1\t"Go, he said.\nb\t0\tGo "he" said".\n',
        FOUR.rstrip("\n"),
        FOUR + "\n\n",
        FOUR.replace("\n", "\r\n"),
        "\ufeff" + FOUR,
    ],
    ids=["4 columns", "3 columns", "no last newline", "empty end", "CRLF", "BOM"],
)
def test_cola_format_keeps_sentences_as_they_stand(body: str) -> None:
    file = write("x.tsv", body)
    assert sentences_of(file) == EXPECTED
    assert load_evaluation(str(file), ("0", "1")).splits["x"].sources == ["a", "b"]


def test_cola_format_keeps_sources_and_names_its_labels() -> None:
    task = load_corpus(str(write("x.tsv", FOUR * 10)))
    train = task.splits["train"]
    assert task.labels == COLA_LABELS
    assert set(zip(train.sources, train.labels, strict=True)) == {("a", 1), ("b", 0)}


@pytest.mark.parametrize(
    ("name", "body", "columns"),
    [
        ("x.tsv", 'sentence\tlabel\n"Go, he said.\t1\nGo "he" said".\t0\n', {}),
        ("x.csv", 'label,text\n1,"""Go, he said."\n0,"Go ""he"" said""."\n', {}),
        (
            "x.jsonl",
            '{"text": "\\"Go, he said.", "label": 1}\n'
            '{"label": "0", "text": "Go \\"he\\" said\\"."}\n',
            {},
        ),
        (
            "x.tsv",
            'id\tutterance\tgrade\n7\t"Go, he said.\t1\n8\tGo "he" said".\t0\n',
            {"text_column": "utterance", "label_column": "grade"},
        ),
        (
            "x.jsonl",
            '{"u": "\\"Go, he said.", "g": 1, "label": 5}\n{"u": "Go \\"he\\" said\\".", "g": 0}',
            {"text_column": "u", "label_column": "g"},
        ),
    ],
    ids=["TSV", "CSV", "JSON lines", "named columns", "named keys"],
)
def test_files_with_names_for_columns(name: str, body: str, columns: dict[str, str]) -> None:
    assert sentences_of(write(name, body), **columns) == EXPECTED


def test_csv_fields_may_span_lines_and_hold_commas() -> None:
    file = write("x.csv", 'text,label\n"One,\ntwo.",good\nThree.,bad\n')
    assert sentences_of(file) == [("One,\ntwo.", "good"), ("Three.", "bad")]


def test_three_classes_named_by_words() -> None:
    rows = "".join(f"Number {i}.,{('so-so', 'good', 'bad')[i % 3]}\n" for i in range(30))
    task = load_corpus(str(write("x.csv", "text,label\n" + rows)))
    assert task.labels == ("bad", "good", "so-so")
    assert sum(map(len, task.splits.values())) == 30


def test_numbers_as_labels_keep_their_order() -> None:
    rows = "".join(f"Number {i}.\t{i}\n" for i in (10, 9, 2) * 5)
    assert load_corpus(str(write("x.tsv", "text\tlabel\n" + rows))).labels == ("2", "9", "10")


def test_a_lone_file_always_gets_the_same_dev_split() -> None:
    file = write("x.tsv", cola_lines(40, 25))
    task, again = (load_corpus(str(file)) for _ in range(2))
    train, dev = task.splits["train"], task.splits["dev"]
    assert len(dev) == 4
    assert {*train.sentences, *dev.sentences} == {f"Sentence {i}." for i in range(40)}
    assert again.splits == task.splits


def test_neighbours_are_held_out_together() -> None:
    whole = corpus.Split([f"{i}" for i in range(205)], [i % 2 for i in range(205)])
    rest, held = corpus.hold_out(whole, 0.2, seed=3)
    assert sorted([*rest.sentences, *held.sentences], key=int) == whole.sentences
    runs = {int(sentence) // 10 for sentence in held.sentences}
    assert len(held) == 41
    assert len(runs & {int(sentence) // 10 for sentence in rest.sentences}) <= 1
    assert corpus.hold_out(whole, 0.2, seed=3) == (rest, held)
    assert corpus.hold_out(whole, 0.2, seed=4)[1] != held


def test_a_folder_with_files_by_split() -> None:
    Path("task").mkdir()
    for name in ("train.csv", "valid.csv", "ood.jsonl"):
        rows = "text,label\nYes.,good\nNo.,bad\n"
        if name.endswith("jsonl"):
            rows = '{"text": "Yes.", "label": "good"}\n'
        write(f"task/{name}", rows)
    sizes = {name: len(split) for name, split in load_corpus("task").splits.items()}
    assert sizes == {"train": 2, "dev": 2, "ood": 1}


def test_a_folder_of_dev_files_alone_is_enough_to_evaluate() -> None:
    Path("task").mkdir()
    write("task/dev.csv", "text,label\nYes.,good\nNo.,bad\n")
    assert load_evaluation("task", ("bad", "good")).splits["dev"].labels == [1, 0]
    with pytest.raises(UserError, match=r"task has no in_domain_train\.tsv and no train\.tsv"):
        load_corpus("task")


def test_two_files_for_one_split_are_refused() -> None:
    Path("task").mkdir()
    for name in ("train.csv", "train.tsv"):
        write(f"task/{name}", "text,label\nYes.,good\n")
    with pytest.raises(UserError, match=r"two train files, train\.tsv and train\.csv; remove one"):
        load_corpus("task")


def test_the_hash_covers_every_file() -> None:
    folder = small_cola(Path("task"))
    before = load_corpus("task").sha256
    assert load_corpus("task").sha256 == before
    write(str(folder / "out_of_domain_dev.tsv"), cola_lines(2, 2))
    assert load_corpus("task").sha256 != before


BAD = {
    "columns": ("x.tsv", "a\t1\t\tOne.\nb\t0\n", r"x\.tsv:2: 2 tab-separated columns where"),
    "label": ("x.tsv", "a\t1\t\tOne.\nb\t2\t\tTwo.\n", r"x\.tsv:2: label '2' is neither 0 nor 1"),
    "header": ("x.tsv", "id\tlabel\tutterance\n", r"x\.tsv:1: label 'label' .* --text_column"),
    "no sentence": ("x.tsv", "a\t1\t\tOne.\nb\t0\t\t \n", r"x\.tsv:2: the sentence is empty"),
    "gap": ("x.tsv", "a\t1\t\tOne.\n\nb\t0\t\tTwo.\n", r"x\.tsv:2: 1 tab-separated column where"),
    "empty": ("x.tsv", "", r"x\.tsv is empty"),
    "blank": ("x.tsv", "\r\n \n", r"x\.tsv is empty"),
    "header only": ("x.csv", "text,label\n", r"x\.csv has a header but no sentences"),
    "one label": ("x.tsv", "a\t1\t\tOne.\nb\t1\t\tTwo.\n", r"x\.tsv has one label only, '1'"),
    "encoding": ("x.tsv", b"a\t1\t\tOne.\nb\t0\t\t\xe9t\xe9\n", r"x\.tsv:2: not UTF-8"),
    "CSV columns": ("x.csv", "text,label\nOne.,1\nTwo.\n", r"x\.csv:3: 1 columns where the header"),
    "CSV quotes": ("x.csv", 'text,label\n"One.,1\n', r"x\.csv:2: unexpected end of data"),
    "CSV header": ("x.csv", "a,b\nOne.,1\n", r"x\.csv needs --text_column: one of .* a, b"),
    "CSV label": ("x.csv", "text,label\nOne.,\n", r"x\.csv:2: the label is empty"),
    "JSON": (
        "x.jsonl",
        '{"text": "One.", "label": 1}\n{"text"\n',
        r"x\.jsonl:2: not a line of JSON",
    ),
    "JSON list": ("x.json", '[{"text": "One."}]\n', r"x\.json:1: not a JSON object"),
    "JSON text": ("x.jsonl", '{"text": 1, "label": 1}\n', r"x\.jsonl:1: the text is not a string"),
    "JSON label": ("x.jsonl", '{"text": "One.", "label": [1]}\n', r"x\.jsonl:1: label \[1\] is"),
    "JSON key": ("x.jsonl", '{"text": "One."}\n', r"x\.jsonl:1 needs --label_column"),
}


@pytest.mark.parametrize(("name", "body", "words"), BAD.values(), ids=BAD)
def test_a_line_that_does_not_fit_is_named(name: str, body: str | bytes, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_corpus(str(write(name, body)))


def test_a_column_that_is_not_there_is_named() -> None:
    file = write("x.csv", "text,label\nOne.,1\n")
    with pytest.raises(UserError, match=r"no column 'body' \(--text_column\); it has text, label"):
        load_corpus(str(file), text_column="body")


def test_a_label_that_the_model_does_not_know_is_named() -> None:
    file = write("x.csv", "text,label\nOne.,good\nTwo.,ugly\n")
    with pytest.raises(UserError, match=r"x\.csv:3: label 'ugly' is none of bad, good"):
        load_evaluation(str(file), ("bad", "good"))


def test_too_few_sentences_to_hold_any_out() -> None:
    with pytest.raises(UserError, match="1 training sentences are too few"):
        corpus.hold_out(corpus.Split(["One."], [0]), 0.1, seed=0)


@pytest.mark.skipif(not COLA.is_dir(), reason="CoLA's files are not beside the checkout")
class TestRealCoLA:
    def test_it_is_read_whole_and_called_cola(self) -> None:
        task = load_corpus(str(COLA))
        assert task.name == "CoLA"
        held = {name: (len(split), sum(split.labels)) for name, split in task.splits.items()}
        assert held == {"train": (8551, 6023), "dev": (527, 365), "ood": (516, 354)}

    def test_it_is_found_in_data(self) -> None:
        Path("data").symlink_to(COLA)
        assert load_corpus("cola").name == "CoLA"
        task = load_corpus("auto")
        assert (task.name, task.reason) == ("CoLA", "CoLA is in data/")

    def test_short_of_a_sentence_it_is_not_cola(self) -> None:
        Path("data/cola").mkdir(parents=True)
        for name in corpus.COLA_FILES.values():
            body = (COLA / name).read_bytes()
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


@pytest.mark.usefixtures("offline")
def test_auto_falls_back_on_minicola_and_says_so() -> None:
    task = load_corpus("auto")
    assert task.name == "MiniCoLA"
    assert "can't be reached" in task.reason


def test_minicola_is_whole() -> None:
    task = load_corpus("minicola")
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 3000,
        "dev": 500,
        "ood": 500,
    }
    assert task.labels == COLA_LABELS
    assert all(split.sources for split in task.splits.values())


def packed(folder: Path, left_out: str = "", counts: tuple[int, int] = COUNTS["train"]) -> bytes:
    """CoLA's archive, made of a folder's files; counts: of the train file in it."""
    (folder / corpus.COLA_FILES["train"]).write_bytes(cola_lines(*counts))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            if file.name != left_out:
                archive.write(file, f"cola_public/raw/{file.name}")
    return buffer.getvalue()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """A web site on this machine that CoLA is fetched from; called with what it is to serve."""
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
    monkeypatch.setattr(corpus, "COLA_URL", f"http://127.0.0.1:{server.server_port}/cola.zip")
    monkeypatch.setattr(corpus, "COLA_COUNTS", COUNTS)
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
        lambda folder: packed(folder, left_out=corpus.COLA_FILES["ood"]),
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


def test_a_download_replaces_no_folder_of_the_user(site: Callable[[bytes], None]) -> None:
    Path("data/cola").mkdir(parents=True)
    mine = write("data/cola/notes.txt", "mine")
    site(packed(small_cola(Path("original"))))
    with pytest.raises(UserError, match=r"data/cola is there, but holds no in_domain_train\.tsv"):
        load_corpus("cola")
    assert mine.read_text() == "mine"


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
        assert not network.reachable(f"http://127.0.0.1:{server.getsockname()[1]}/", 0.5)
        over.set()
        thread.join()
