"""What stands before every request: who may ask, how large and how slow a request may be."""

import asyncio
import hmac
import json
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from potstill.serving.metrics import ServiceMetrics
from potstill.serving.settings import ServeSettings

# These say nothing that a token should protect; the page asks for it.
OPEN_PATHS = ("/", "/health", "/docs", "/openapi.json")
OF_DOCS = "/static-offline-docs/"  # where fastapi_offline has the scripts of /docs
PATHS = (*OPEN_PATHS, "/predict", "/explain", "/info", "/metrics")
ERROR_TYPES = {
    401: "Unauthorized",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "Timeout",
    413: "Validation",
    422: "Validation",
    429: "Overloaded",
    503: "Timeout",
}

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("potstill.access")


def error_body(status: int, message: str) -> dict[str, str]:
    """Return the body of an error, in the shape of text-embeddings-inference's."""
    return {"error": message, "error_type": ERROR_TYPES.get(status, "Backend")}


class RefusedError(Exception):
    """A request that is not handed on."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


class Gate:
    """An ASGI application around another: it checks the token, reads the body whole, within its
    limits, before it hands the request on, bounds the time, answers what failed in JSON, counts
    and logs."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: ServiceMetrics):
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        status = 0

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, watched_send)
        except RefusedError as refused:
            if not status:
                await _send_error(watched_send, refused.status, refused.message)
        except TimeoutError:
            seconds = self.settings.timeout
            if not status:
                message = f"there was no answer within {seconds:g} seconds; try again later"
                await _send_error(watched_send, 503, message)
        except _LeftError:
            status = 499  # as nginx counts clients that leave
        except Exception:
            # Starlette has answered with 500 already, where an answer had not begun.
            logger.exception("a request failed")
            if not status:
                await _send_error(watched_send, 500, "the service failed; see its log")
        path = scope["path"] if scope["path"] in PATHS else "other"
        seconds = time.perf_counter() - started
        self.metrics.requests.labels(path, status).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        if access_logger.isEnabledFor(logging.INFO):
            client = (scope.get("client") or ("-",))[0]
            target = scope.get("raw_path", b"").decode("ascii", "replace")[:200]
            access_logger.info(
                '%s "%s %s" %d %.1f ms', client, scope["method"], target, status, 1000 * seconds
            )

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        self._check_token(scope["path"], headers.get(b"authorization", b""))
        try:
            async with asyncio.timeout(self.settings.timeout):
                body = await self._read_body(headers, receive)
        except TimeoutError:
            raise RefusedError(408, "the request did not arrive in time") from None
        sent = False

        async def replay() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async with asyncio.timeout(self.settings.timeout):
            await self.app(scope, replay, send)

    def _check_token(self, path: str, given: bytes) -> None:
        token = self.settings.token
        if not token or path in OPEN_PATHS or path.startswith(OF_DOCS):
            return
        if not hmac.compare_digest(given, b"Bearer " + token.encode()):
            raise RefusedError(401, "send the service's token, as Authorization: Bearer TOKEN")

    async def _read_body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self.settings.max_body
        too_large = RefusedError(
            413, f"the body is larger than {limit} bytes; send it in several requests"
        )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > limit:
            raise too_large
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _LeftError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise too_large
            more = message.get("more_body", False)
        return b"".join(parts)


class _LeftError(Exception):
    """The client has left."""


async def _send_error(send: Send, status: int, message: str) -> None:
    body = json.dumps(error_body(status, message)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status == 503:
        headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
