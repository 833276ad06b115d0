"""The service as an ASGI application."""

import base64
import hashlib
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from potstill import __version__
from potstill.inference.classifier import Classifier
from potstill.serving.batching import Batcher, OverloadedError, Prediction
from potstill.serving.gate import Gate, RefusedError, error_body
from potstill.serving.metrics import ServiceMetrics
from potstill.serving.schemas import (
    Answer,
    ErrorAnswer,
    ExplainedAnswer,
    LabelScore,
    PredictRequest,
    TextRequest,
    to_answer,
    to_label_scores,
)
from potstill.serving.settings import ServeSettings

# Of each word there are as many numbers as classes; more texts would make answers too large.
MAX_EXPLAINED = 100
PAGE = Path(__file__).parent / "page.html"
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in {
        401: "no token, or a wrong one",
        408: "the request did not arrive in time",
        413: "the body is too large, or has too many texts",
        422: "no JSON, other fields, an empty text or one that is too long",
        429: "too many texts wait; try again",
        503: "no answer in time",
    }.items()
}
PredictAnswer = Answer | list[Answer] | list[LabelScore] | list[list[LabelScore]]
ExplainAnswer = ExplainedAnswer | list[ExplainedAnswer]


def make_app(models: dict[str, Classifier], settings: ServeSettings = ServeSettings()) -> ASGIApp:
    """Return the service of `models`, "student" and perhaps "teacher"."""
    metrics = ServiceMetrics()
    batchers = {
        name: Batcher(
            classifier,
            max_batch=settings.max_batch,
            max_queue=settings.max_queue,
            observe=metrics.batch_texts.labels(name).observe,
        )
        for name, classifier in models.items()
    }
    for name, batcher in batchers.items():
        metrics.waiting.labels(name).set_function(partial(getattr, batcher, "n_waiting"))
    described = {name: describe(classifier) for name, classifier in models.items()}
    about = {
        "version": __version__,
        "max_client_batch_size": settings.max_texts,
        "max_characters": settings.max_characters,
        "models": described,
    }

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        for batcher in batchers.values():
            batcher.start()
        yield
        for batcher in batchers.values():
            await batcher.close()

    # FastAPI, but /docs has its scripts from here instead of a CDN.
    app = FastAPIOffline(
        title="potstill",
        version=__version__,
        description="A text classifier. Long texts are cut; the answer says so.",
        lifespan=lifespan,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    _answer_errors_in_json(app)

    async def answer(request: TextRequest, explain: bool) -> tuple[list[Prediction], Any]:
        texts = check_request(request.all_texts(), settings)
        if request.model not in batchers:
            raise RefusedError(422, f"model: there is {' and '.join(batchers)} here")
        if explain and len(texts) > MAX_EXPLAINED:
            raise RefusedError(
                413,
                f"there are {len(texts)} texts; have up to {MAX_EXPLAINED} explained in a request",
            )
        batcher = batchers[request.model]
        try:
            return await batcher.predict(texts, explain=explain), batcher.classifier
        except OverloadedError:
            raise RefusedError(429, "too many texts wait already; try again later") from None

    @app.post("/predict", response_model=PredictAnswer, responses=ERRORS)
    async def predict(request: PredictRequest) -> Response:
        """Classify one text or several.

        With `inputs` request and answer have the shape of text-embeddings-inference's /predict.
        """
        started = time.perf_counter()
        predictions, classifier = await answer(request, explain=False)
        labels = tuple(classifier.classes_.tolist())
        body: list[Any]
        if request.inputs is None:
            body = [to_answer(each, labels) for each in predictions]
        else:
            body = [to_label_scores(each, labels, request.raw_scores) for each in predictions]
        return _timed(body[0] if request.single else body, started)

    @app.post("/explain", response_model=ExplainAnswer, responses=ERRORS)
    async def explain(request: TextRequest) -> Response:
        """Classify one text or several, and say what the classes would be after each word."""
        started = time.perf_counter()
        predictions, classifier = await answer(request, explain=True)
        labels = tuple(classifier.classes_.tolist())
        body = [to_answer(each, labels) for each in predictions]
        return _timed(body[0] if request.single else body, started)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the service is there."""
        return {"status": "ok"}

    @app.get("/info")
    async def info() -> dict[str, Any]:
        """Describe the models and the limits."""
        return about

    @app.get("/metrics")
    async def prometheus() -> Response:
        """Return what is counted, in Prometheus' format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    page, policy = read_page()

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        headers = {"content-security-policy": policy, "x-content-type-options": "nosniff"}
        return HTMLResponse(page, headers=headers)

    return Gate(app, settings, metrics)


def describe(classifier: Classifier) -> dict[str, Any]:
    """Return what `/info` says of a model; this is the first text that it reads, too."""
    classifier.explain("A first text.")
    return {
        "title": classifier.title,
        "parameters": classifier.n_parameters,
        "labels": classifier.classes_.tolist(),
        "max_input_length": classifier.max_length,
    }


def check_request(texts: list[str], settings: ServeSettings) -> list[str]:
    """Return the texts of a request.

    Raises:
        RefusedError: There are too many, or one is empty, too long or no Unicode.
    """
    if not texts:
        raise RefusedError(422, "there is no text; give one or more")
    if len(texts) > settings.max_texts:
        raise RefusedError(
            413,
            f"there are {len(texts)} texts; send up to {settings.max_texts} in a request",
        )
    for number, text in enumerate(texts, 1):
        where = f"text {number} of {len(texts)}"
        if not text.strip():
            raise RefusedError(422, f"{where} is empty; leave it out")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RefusedError(422, f"{where} has half of a surrogate pair") from None
        if len(text) > settings.max_characters:
            raise RefusedError(
                422,
                f"{where} has {len(text)} characters; send up to {settings.max_characters}",
            )
    return texts


def read_page() -> tuple[str, str]:
    """Return the page, and the policy that lets it run its own script and style, and no other."""
    page = PAGE.read_text(encoding="utf-8")
    sources = {"script": "", "style": ""}
    for kind in sources:
        parts = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(p.encode()).digest()).decode() for p in parts]
        sources[kind] = " ".join(f"'sha256-{digest}'" for digest in digests)
    policy = (
        f"default-src 'none'; script-src {sources['script']}; style-src {sources['style']}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return page, policy


def _timed(body: Any, started: float) -> JSONResponse:
    milliseconds = 1000 * (time.perf_counter() - started)
    return JSONResponse(body, headers={"server-timing": f"model;dur={milliseconds:.1f}"})


def _answer_errors_in_json(app: FastAPI) -> None:
    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        headers = {"retry-after": "1"} if error.status == 429 else None
        return JSONResponse(error_body(error.status, error.message), error.status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "json_invalid":
            message = f"the body is no JSON ({first.get('ctx', {}).get('error', message)})"
        elif first["type"] == "missing" and not where:
            message = "there is no body; send JSON"
        elif where:
            message = f"{where}: {message}"
        printable = message.encode("ascii", "backslashreplace").decode()
        return JSONResponse(error_body(422, printable[:500]), 422)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        # FastAPI has 400 for a body that Python can't read, as of bytes that are not UTF-8.
        status = 422 if error.status_code == 400 else error.status_code
        return JSONResponse(error_body(status, str(error.detail)), status, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse(error_body(500, "the service failed; see its log"), 500)
