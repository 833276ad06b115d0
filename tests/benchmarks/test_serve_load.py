"""What serve_load.py counts, on a service of a few requests."""

import asyncio

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from serve_load import SERVERS, ask_many, measure, measure_servers, resident_megabytes, start

from potstill.pretrained import COLA
from potstill.serving.server import bind
from tests.serving.conftest import classifier, running, service, shared_student  # noqa: F401


def test_every_request_is_counted_and_timed(service) -> None:  # noqa: F811
    times, errors = asyncio.run(ask_many(service.port, ["One bird.", "Two."], clients=3, total=20))
    assert (len(times), errors) == (20, 0)
    assert all(0 < seconds < 10 for seconds in times)
    assert "200" in service.get("/metrics").body
    _, errors = asyncio.run(ask_many(service.port, [" "], clients=2, total=5))
    assert errors == 5  # an empty text is refused


def test_percentiles_and_rates() -> None:
    found = measure([0.001] * 98 + [0.5, 0.5], errors=2, seconds=2.0, processor=0.3)
    assert (found["requests"], found["errors"], found["requests per second"]) == (100, 2, 50.0)
    assert found["processor ms per request"] == 3.0
    assert (found["p50 ms"], found["p99 ms"]) == (1.0, 500.0)


@pytest.mark.slow
def test_all_three_servers_answer() -> None:
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    rows = measure_servers(COLA, port, ["One bird."], rounds=1, seconds=0.2)
    assert {row["server"] for row in rows} == set(SERVERS)
    assert all(row["requests"] and not row["errors"] for row in rows)
    process = start("serve", COLA, port)
    try:
        assert resident_megabytes(process) > 20
    finally:
        process.terminate()
        process.wait(timeout=30)
