"""Rubbish in requests: the service answers with a documented error, and never with a 500."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi", reason="the extra serve is not installed")

import schemathesis
from starlette.testclient import TestClient

from potstill.inference.onnx import OnnxClassifier
from potstill.pretrained import COLA
from potstill.serving.app import make_app
from potstill.serving.settings import ServeSettings
from tests.fuzz.mutation import CASES, damaged
from tests.serving.conftest import running

QUICK = settings(
    max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
BODIES = [
    {"text": "The books is old."},
    {"texts": ["The books is old.", "Another."], "model": "student"},
    {"inputs": [["One."], ["Two."]], "raw_scores": True, "truncate": True},
]
ANSWERS = {200, 401, 404, 405, 408, 413, 422, 429, 503}


@pytest.fixture(scope="module")
def client() -> Any:
    app = make_app({"student": OnnxClassifier(COLA)}, ServeSettings())
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def check_answer(answer: Any) -> None:
    assert answer.status_code in ANSWERS, (answer.status_code, answer.text)
    if answer.status_code != 200 and answer.headers["content-type"] == "application/json":
        body = answer.json()
        assert {"error", "error_type"} <= body.keys()
        assert body["error"].isprintable()
    json.loads(answer.content)


@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_bodies_of_rubbish(client: Any, path: str) -> None:
    @QUICK
    @given(damaged([json.dumps(body).encode() for body in BODIES]))
    def case(body: bytes) -> None:
        check_answer(client.post(path, content=body, headers={"content-type": "application/json"}))

    case()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_bodies_of_rubbish_in_quantity(client: Any, path: str) -> None:
    @settings(QUICK, max_examples=CASES)
    @given(damaged([json.dumps(body).encode() for body in BODIES]))
    def case(body: bytes) -> None:
        check_answer(client.post(path, content=body, headers={"content-type": "application/json"}))

    case()


def test_any_text_is_answered(client: Any) -> None:
    @settings(QUICK, max_examples=200)
    @given(st.text(min_size=1, max_size=200))
    def case(text: str) -> None:
        answer = client.post("/explain", content=json.dumps({"text": text}).encode())
        check_answer(answer)

    case()


def test_its_own_openapi_document_holds() -> None:
    """Requests that schemathesis makes of the document get an answer that it promises."""
    with running({"student": OnnxClassifier(COLA)}) as service:
        schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
        paths = set()
        for operation in schema.get_all_operations():
            case_of = operation.ok()
            paths.add(case_of.path)

            @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
            @given(case=case_of.as_strategy())
            def one(case: Any) -> None:
                answer = case.call()
                assert answer.status_code in ANSWERS, (answer.status_code, answer.text)

            one()
    assert {"/predict", "/explain", "/health", "/info", "/metrics"} <= paths


def test_random_order_of_bytes(client: Any) -> None:
    random = Random(0)
    for _ in range(200):
        check_answer(client.post("/predict", content=random.randbytes(random.randrange(300))))
