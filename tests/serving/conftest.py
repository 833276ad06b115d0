"""Services of a small random student, on sockets of this machine."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potstill.inference.classifier import Classifier
from potstill.inference.student import StudentClassifier
from potstill.serving.settings import ServeSettings
from tests.inference.conftest import write_student

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from potstill.serving.app import make_app
from potstill.serving.server import bind, make_server


class SlowClassifier(Classifier):
    """A student that takes its time, fails where it is told to, and notes what it is asked.

    Attributes:
        seconds: What each batch takes.
        batches: The number of texts of each batch.
    """

    def __init__(self, student: StudentClassifier):
        self.student, self.seconds = student, 0.0
        self.batches: list[int] = []
        self.classes_, self.title, self.config = student.classes_, student.title, student.config
        self.temperature = student.temperature
        self.n_parameters, self.max_length = student.n_parameters, student.max_length

    def logits(self, texts: str | Iterable[str]) -> np.ndarray:
        texts = [texts] if isinstance(texts, str) else list(texts)
        self.batches.append(len(texts))
        time.sleep(self.seconds)
        if "fail" in texts:
            raise RuntimeError("told to fail")
        return self.student.logits(texts)

    def word_logits(self, texts: str | Iterable[str]) -> list[np.ndarray]:
        return self.student.word_logits(texts)

    def truncated(self, texts: str | Iterable[str]) -> np.ndarray:
        return self.student.truncated(texts)


@dataclass(frozen=True)
class Reply:
    """What the service answered."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Service:
    """A service that runs."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            read = response.read()
            is_json = response.headers["content-type"] == "application/json"
            return Reply(
                response.status,
                json.loads(read) if is_json else read.decode(errors="replace"),
                {name.lower(): value for name, value in response.headers.items()},
            )
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, headers=headers)

    def post(self, path: str, value: Any, **headers: str) -> Reply:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.send("POST", path, body, {"content-type": "application/json"} | headers)


@contextmanager
def running(models: dict[str, Any], settings: ServeSettings = ServeSettings()) -> Iterator[Service]:
    """Run a service in a thread."""
    listening = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = make_server(make_app(models, settings), settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Service(port)
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


def wait_until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it does not become true"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def shared_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a student that judges words."""
    return write_student(tmp_path_factory.mktemp("models") / "student", max_length=64)


@pytest.fixture(scope="session")
def wordless_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a student that does not judge words."""
    return write_student(tmp_path_factory.mktemp("models") / "wordless", word_head=False)


@pytest.fixture(scope="session")
def classifier(shared_student: Path) -> StudentClassifier:
    return StudentClassifier(shared_student)


@pytest.fixture(scope="module")
def service(classifier: StudentClassifier) -> Iterator[Service]:
    with running({"student": classifier}) as service:
        yield service


@pytest.fixture
def slow(classifier: StudentClassifier) -> SlowClassifier:
    return SlowClassifier(classifier)
