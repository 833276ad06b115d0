"""Clients that are many, slow, greedy or rude."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from potstill.errors import UserError
from potstill.inference.student import StudentClassifier
from potstill.serving.server import bind
from potstill.serving.settings import ServeSettings
from tests.inference.conftest import SENTENCES
from tests.serving.conftest import Reply, Service, SlowClassifier, running, wait_until

HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
TEXT = {"text": "The birds sing."}


@pytest.fixture(scope="module")
def impatient(classifier: StudentClassifier) -> Iterator[Service]:
    """A service that waits half a second, for bodies of up to 100 kB."""
    settings = ServeSettings(timeout=0.5, max_body=100_000)
    with running({"student": classifier}, settings) as service:
        yield service


def connect(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=10)


def read_all(client: socket.socket) -> bytes:
    """Return what comes until the service closes the connection."""
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def works(service: Service) -> bool:
    return service.post("/predict", TEXT).status == 200


@pytest.mark.parametrize("sent", [b"", b"POST", HEAD, HEAD + b"x: "])
def test_a_client_that_sends_no_request_is_cut_off(sent: bytes, impatient: Service) -> None:
    with connect(impatient) as client:
        client.sendall(sent)
        started = time.monotonic()
        assert read_all(client) == b""
        assert time.monotonic() - started < 5
    assert works(impatient)


def test_a_second_request_that_does_not_come_is_cut_off(impatient: Service) -> None:
    body = json.dumps(TEXT).encode()
    with connect(impatient) as client:
        client.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        client.sendall(HEAD)
        read_all(client)
    assert works(impatient)


def test_a_body_that_does_not_come_is_408(impatient: Service) -> None:
    with connect(impatient) as client:
        client.sendall(HEAD + b'content-length: 50\r\n\r\n{"text"')
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"error_type": "Timeout"' in answer
    assert works(impatient)


def test_a_client_that_leaves_in_the_middle_is_forgotten(impatient: Service) -> None:
    for _ in range(20):
        with connect(impatient) as client:
            client.sendall(HEAD + b'content-length: 50\r\n\r\n{"text"')
    assert works(impatient)


def test_an_endless_body_is_413(impatient: Service) -> None:
    with connect(impatient) as client:
        client.sendall(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        try:
            for _ in range(200):
                client.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except OSError:
            pass  # cut off
        answer = client.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"larger than 100000 bytes" in answer
    assert works(impatient)


@pytest.mark.parametrize("length", [b"-1", b"1e9", b"9" * 400, "²".encode("latin-1")])
def test_a_length_that_is_none_is_refused(length: bytes, impatient: Service) -> None:
    with connect(impatient) as client:
        client.sendall(HEAD + b"content-length: " + length + b"\r\n\r\n{}")
        answer = client.recv(65536)
    assert answer[:13] in (b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")
    assert works(impatient)


@pytest.mark.parametrize("line", [b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00", b"%\r\n\r\n"])
def test_what_is_no_http_is_refused(line: bytes, impatient: Service) -> None:
    with connect(impatient) as client:
        client.sendall(line)
        assert not read_all(client).startswith(b"HTTP/1.1 2")
    assert works(impatient)


def test_a_head_without_end_is_431(impatient: Service) -> None:
    with connect(impatient) as client:
        client.sendall(HEAD)
        try:
            for i in range(2000):
                client.sendall(b"x-%d: %s\r\n" % (i, b"y" * 1000))
        except OSError:
            pass
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 431") or answer == b""  # reset before it was read
    assert works(impatient)


def test_a_hundred_connections_that_hang_stop_nobody(impatient: Service) -> None:
    clients = [connect(impatient) for _ in range(100)]
    try:
        for client in clients:
            client.sendall(HEAD)
        assert works(impatient)
    finally:
        for client in clients:
            client.close()


def test_a_port_in_use_is_named(service: Service) -> None:
    with pytest.raises(UserError, match=rf"`port` {service.port} of 127.0.0.1 is not to be had"):
        bind("127.0.0.1", service.port)


@pytest.mark.parametrize("host", ["nowhere.invalid", "203.0.113.7", "a" * 300])
def test_a_host_that_is_not_ours_is_named(host: str) -> None:
    with pytest.raises(UserError, match="`host`"):
        bind(host, 0)


def ask_together(service: Service, bodies: list[dict[str, object]]) -> list[Reply]:
    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(lambda body: service.post("/predict", body), bodies))


def test_requests_under_way_at_the_same_time_go_through_together(
    slow: SlowClassifier, classifier: StudentClassifier
) -> None:
    texts = SENTENCES[:24]
    with running({"student": slow}, ServeSettings(max_batch=16)) as service:
        slow.seconds, slow.batches = 0.2, []
        replies = ask_together(service, [{"text": text} for text in texts])
        assert sum(slow.batches) == 24
        assert len(slow.batches) < 12
        assert max(slow.batches) <= 16
        slow.batches = []
        assert len(service.post("/predict", {"texts": texts}).body) == 24  # in two parts
        assert slow.batches == [16, 8]
    labels = classifier.predict(texts).tolist()
    assert [reply.body["label"] for reply in replies] == labels


def test_without_batching_each_text_goes_by_itself(slow: SlowClassifier) -> None:
    with running({"student": slow}, ServeSettings(max_batch=1)) as service:
        slow.seconds, slow.batches = 0.02, []
        ask_together(service, [TEXT] * 8)
        assert slow.batches == [1] * 8


def test_a_text_that_fails_harms_none_of_its_batch(slow: SlowClassifier) -> None:
    with running({"student": slow}) as service:
        slow.seconds = 0.2
        bodies = [{"text": "fail" if i == 5 else f"Bird {i} sings."} for i in range(10)]
        replies = ask_together(service, bodies)
    assert [reply.status for reply in replies] == [500 if i == 5 else 200 for i in range(10)]


def test_a_full_queue_is_429(slow: SlowClassifier) -> None:
    with running({"student": slow}, ServeSettings(max_queue=4, max_batch=1)) as service:
        slow.seconds = 0.3
        replies = ask_together(service, [TEXT] * 12)
        statuses = [reply.status for reply in replies]
        assert set(statuses) == {200, 429}
        refused = replies[statuses.index(429)]
        assert refused.headers["retry-after"] == "1"
        assert refused.body["error_type"] == "Overloaded"
        assert service.post("/predict", {"texts": ["a"] * 5}).status == 429
        wait_until(lambda: works(service))


def test_an_answer_that_takes_too_long_is_503(slow: SlowClassifier) -> None:
    with running({"student": slow}, ServeSettings(timeout=0.3)) as service:
        slow.seconds = 1.0
        reply = service.post("/predict", TEXT)
        assert reply.status == 503
        assert reply.body["error"] == ("there was no answer within 0.3 seconds; try again later")
        slow.seconds = 0.0
        wait_until(lambda: works(service))
        # What nobody waits for any more takes no place in the queue.
        assert 'potstill_waiting_texts{model="student"} 0.0' in service.get("/metrics").body


def test_a_client_that_leaves_while_it_waits_stops_nobody(slow: SlowClassifier) -> None:
    body = json.dumps(TEXT).encode()
    with running({"student": slow}) as service:
        slow.seconds = 0.3
        for _ in range(5):
            with connect(service) as client:
                client.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        slow.seconds = 0.0
        assert works(service)


def test_the_end_waits_for_the_requests_under_way(slow: SlowClassifier) -> None:
    replies: list[Reply] = []
    with running({"student": slow}) as service:
        slow.seconds = 0.5
        asking = threading.Thread(target=lambda: replies.append(service.post("/predict", TEXT)))
        asking.start()
        wait_until(lambda: bool(slow.batches))
    asking.join()
    assert replies[0].status == 200
