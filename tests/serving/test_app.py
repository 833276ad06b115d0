"""What the service answers."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from potstill.inference.onnx import OnnxClassifier
from potstill.inference.student import StudentClassifier
from potstill.serving.settings import ServeSettings
from tests.inference.conftest import LABELS, SENTENCES
from tests.serving.conftest import Service, SlowClassifier, running, wait_until

WILD = "Naïve «birds» sing,\tdon't 👩‍👩‍👧 they?\n\x00\x1b[31m"
TEXTS = [*SENTENCES[:9], "A bird sings. " * 60, WILD]


def test_predict_answers_as_the_classifier(service: Service, classifier: StudentClassifier) -> None:
    reply = service.post("/predict", {"texts": TEXTS})
    assert reply.status == 200
    assert [answer["label"] for answer in reply.body] == classifier.predict(TEXTS).tolist()
    rows = [[answer["probabilities"][label] for label in LABELS] for answer in reply.body]
    np.testing.assert_allclose(rows, classifier.predict_proba(TEXTS), atol=1e-4)
    cut = [answer.get("cut", False) for answer in reply.body]
    assert cut == classifier.truncated(TEXTS).tolist() != [False] * len(TEXTS)
    for text, answer in zip(TEXTS, reply.body, strict=True):
        alone = service.post("/predict", {"text": text})
        assert alone.body["label"] == answer["label"]
        assert alone.body["probabilities"] == pytest.approx(answer["probabilities"], abs=2e-4)
        assert alone.headers["server-timing"].startswith("model;dur=")


def test_a_goal_decides_on_the_label(service: Service, classifier: StudentClassifier) -> None:
    before = classifier.config
    try:
        for offsets, label in (([9.0, 0.0], "bad"), ([0.0, 9.0], "good")):
            classifier.config = before | {"decision": {"offsets": offsets}}
            for path in ("/predict", "/explain"):
                reply = service.post(path, {"texts": TEXTS})
                assert {answer["label"] for answer in reply.body} == {label}
    finally:
        classifier.config = before


def test_explain_answers_as_the_classifier(service: Service, classifier: StudentClassifier) -> None:
    reply = service.post("/explain", {"texts": TEXTS})
    assert reply.status == 200
    for explanation, answer in zip(classifier.explain(TEXTS), reply.body, strict=True):
        assert answer["label"] == explanation.label
        assert [word["word"] for word in answer["words"]] == explanation.words
        assert answer["decisive"] == explanation.decisive
        rows = [[word["probabilities"][label] for label in LABELS] for word in answer["words"]]
        np.testing.assert_allclose(rows, explanation.word_probabilities, atol=1e-4)
    assert service.post("/explain", {"text": TEXTS[0]}).body["label"] == reply.body[0]["label"]


class TestTheShapeOfTextEmbeddingsInference:
    def test_one_text(self, service: Service, classifier: StudentClassifier) -> None:
        for inputs in (TEXTS[0], [TEXTS[0]]):
            reply = service.post("/predict", {"inputs": inputs, "truncate": True})
            scores = {each["label"]: each["score"] for each in reply.body}
            expected = dict(zip(LABELS, classifier.predict_proba(TEXTS[0])[0], strict=True))
            assert scores == pytest.approx(expected, abs=1e-5)
            assert reply.body[0]["score"] >= reply.body[1]["score"]

    def test_a_batch_and_raw_scores(self, service: Service, classifier: StudentClassifier) -> None:
        inputs = [[text] for text in TEXTS]
        reply = service.post("/predict", {"inputs": inputs, "raw_scores": True})
        for answer, row in zip(reply.body, classifier.logits(TEXTS), strict=True):
            scores = {each["label"]: each["score"] for each in answer}
            assert scores == pytest.approx(dict(zip(LABELS, row.tolist(), strict=True)), abs=1e-4)

    @pytest.mark.parametrize("inputs", [["a", "b"], [["a", "b"]], [["a"], []], []])
    def test_pairs_are_refused(self, inputs: Any, service: Service) -> None:
        reply = service.post("/predict", {"inputs": inputs})
        assert reply.status == 422
        assert "no pairs" in reply.body["error"]

    def test_a_client_of_the_hub_works(
        self,
        service: Service,
        classifier: StudentClassifier,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        hub = pytest.importorskip("huggingface_hub")
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        client = hub.InferenceClient(model=f"{service.url}/predict")
        answer = client.text_classification(TEXTS[0])
        first = answer[0] if isinstance(answer, list) else answer
        assert first.label == classifier.predict(TEXTS[0])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "there is no body; send JSON"),
        (b"{bad", "the body is no JSON"),
        (b"\xff\xfe\x00", ""),
        (b"[" * 100_000, ""),
        (b"nul", "the body is no JSON"),
        (b"3", ""),
        ({}, "give one of text, texts, inputs"),
        ({"text": "a", "texts": ["b"]}, "give one of"),
        ({"text": 3}, "text: Input should be a valid string"),
        ({"texts": ["a", None]}, "texts.1: Input should be a valid string"),
        ({"texts": "a"}, "texts: Input should be a valid list"),
        ({"texts": []}, "there is no text"),
        ({"text": " \n"}, "text 1 of 1 is empty; leave it out"),
        ({"texts": ["a", ""]}, "text 2 of 2 is empty"),
        (b'{"text": "\\ud800 half"}', "surrogate"),
        ({"text": "x" * 10_001}, "text 1 of 1 has 10001 characters; send up to 10000"),
        ({"text": "a", "model": "teacher"}, "model: there is student here"),
        ({"text": "a", "model": {"a": 1}}, "model: Input should be a valid string"),
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_a_bad_body_is_422_and_one_sentence(
    path: str, body: Any, words: str, service: Service
) -> None:
    reply = service.post(path, body)
    assert reply.status == 422
    assert set(reply.body) == {"error", "error_type"}
    assert words.removesuffix(", inputs") in reply.body["error"]
    assert "\n" not in reply.body["error"] and len(reply.body["error"]) <= 500
    assert service.post("/predict", {"text": "Still there?"}).status == 200


def test_too_much_is_413(service: Service) -> None:
    reply = service.post("/predict", {"text": "x" * 10_000_000})
    assert (reply.status, reply.body["error_type"]) == (413, "Validation")
    assert "larger than 1000000 bytes" in reply.body["error"]
    reply = service.post("/predict", {"texts": ["a"] * 1001})
    assert reply.status == 413
    assert "there are 1001 texts; send up to 1000" in reply.body["error"]
    assert len(service.post("/predict", {"texts": ["a"] * 1000}).body) == 1000
    reply = service.post("/explain", {"texts": ["a"] * 101})
    assert (reply.status, len(service.post("/explain", {"texts": ["a"] * 100}).body)) == (413, 100)
    assert "have up to 100 explained in a request" in reply.body["error"]


def test_paths_and_methods_that_there_are_not(service: Service) -> None:
    assert service.get("/nowhere").status == 404
    assert service.get("/nowhere").body["error_type"] == "NotFound"
    assert service.get("/predict").status == 405
    assert service.post("/health", {}).status == 405


def test_a_body_of_another_type_is_refused(service: Service) -> None:
    """So that no page of another site can make a browser ask without being allowed to."""
    body = b'{"text": "a"}'
    assert service.send("POST", "/predict", body, {"content-type": "text/plain"}).status == 422
    assert service.send("POST", "/predict", body).status == 422


def test_health_info_and_openapi(service: Service, classifier: StudentClassifier) -> None:
    assert service.get("/health").body == {"status": "ok"}
    info = service.get("/info").body
    assert info["models"]["student"] == {
        "title": "DistilRNN",
        "parameters": classifier.n_parameters,
        "labels": LABELS,
        "max_input_length": 64,
    }
    schema = service.get("/openapi.json").body
    assert {"/predict", "/explain", "/health", "/info", "/metrics"} == set(schema["paths"])
    assert {"413", "422", "429", "503"} < set(schema["paths"]["/predict"]["post"]["responses"])


def test_the_description_of_the_api_loads_nothing_from_elsewhere(classifier: object) -> None:
    with running({"student": classifier}, ServeSettings(token="secret")) as service:
        page = service.get("/docs").body
        assert "SwaggerUIBundle" in page and "http" not in page.replace(service.url, "")
        for address in re.findall(r'(?:src|href)="([^"]+)"', page):
            assert service.get(address).status == 200, address
        assert service.get("/static-offline-docs/../../predict").status in (401, 404)


def test_metrics_count(service: Service) -> None:
    def value(name: str) -> float:
        lines = service.get("/metrics").body.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    answered = 'potstill_requests_total{path="/predict",status="200"}'
    texts = 'potstill_batch_texts_sum{model="student"}'
    before = value(answered), value(texts)
    service.post("/predict", {"texts": TEXTS})
    service.post("/predict", {"text": "x"})
    assert (value(answered) - before[0], value(texts) - before[1]) == (2, len(TEXTS) + 1)
    assert value('potstill_waiting_texts{model="student"}') == 0
    assert value("process_resident_memory_bytes") > 1e6
    service.get("/a/" + "x" * 3000)
    assert "xxx" not in service.get("/metrics").body  # no label that a client chooses


def test_a_token_is_asked_for(classifier: StudentClassifier) -> None:
    with running({"student": classifier}, ServeSettings(token="sesame")) as service:
        body = {"text": "The birds sing."}
        for headers in ({}, {"authorization": "sesame"}, {"authorization": "Bearer sesam"}):
            reply = service.post("/predict", body, **headers)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert reply.body["error_type"] == "Unauthorized"
        assert service.get("/metrics").status == service.get("/info").status == 401
        assert service.post("/predict", body, authorization="Bearer sesame").status == 200
        assert service.get("/health").status == service.get("/").status == 200


def test_a_model_without_a_word_layer_explains_too(wordless_student: Path, tmp_path: Path) -> None:
    exported = StudentClassifier(wordless_student).export_onnx(tmp_path / "exported")
    assert isinstance(exported, OnnxClassifier)
    with running({"student": exported}) as service:
        reply = service.post("/explain", {"text": "The birds sing."})
        assert [word["word"] for word in reply.body["words"]] == ["The", "birds", "sing."]


def test_a_teacher_answers_beside_the_student(
    classifier: StudentClassifier, slow: SlowClassifier
) -> None:
    slow.classes_ = np.array(["no", "yes"])
    with running({"student": classifier, "teacher": slow}) as service:
        for model, labels in (("student", LABELS), ("teacher", ["no", "yes"])):
            answer = service.post("/predict", {"text": "The birds sing.", "model": model}).body
            assert list(answer["probabilities"]) == labels


def test_a_failure_is_500_in_json_and_harms_no_neighbour(
    slow: SlowClassifier, caplog: pytest.LogCaptureFixture
) -> None:
    with running({"student": slow}) as service:
        reply = service.post("/predict", {"text": "fail"})
        assert (reply.status, reply.body["error_type"]) == (500, "Backend")
        assert "told to fail" not in reply.body["error"]
        wait_until(lambda: "told to fail" in caplog.text)
        assert service.post("/predict", {"text": "The birds sing."}).status == 200


def test_the_page_may_load_nothing_from_outside(service: Service) -> None:
    reply = service.get("/")
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert "unsafe" not in policy
    addresses = re.findall(r"https?:|[\"'(]//|@import|url\(", reply.body)
    assert addresses == ["http:"]  # the name of SVG's namespace, which nothing loads
    assert "http://www.w3.org/2000/svg" in reply.body
