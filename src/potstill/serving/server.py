"""The server under the service: its socket, its connections, and how it ends."""

import asyncio
import errno
import logging
import queue
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import QueueHandler, QueueListener
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from potstill.errors import UserError
from potstill.serving.gate import access_logger
from potstill.serving.settings import ServeSettings

MAX_HEADER_BYTES = 65536
MAX_LOG_LINES = 10_000  # that wait to be written; further ones are dropped
HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)
KEEP_ALIVE = 30  # seconds that an idle connection is kept


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UserError: The host is no address of this machine, or the port can't be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family)
    except (OSError, UnicodeError) as error:
        raise UserError(f"`host` {host[:99]} is no address ({error}); name another.") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise UserError(
                f"`host` {host} is no address of this machine; name one that is, such as 127.0.0.1."
            ) from error
        raise UserError(
            f"`port` {port} of {host} is not to be had ({error.strerror}); name another `port`, or "
            "0 for any that is free."
        ) from error
    return listening


def make_server(app: ASGIApp, settings: ServeSettings) -> uvicorn.Server:
    """Return a server of `app` that closes connections which take too long."""

    class Protocol(_ImpatientProtocol):
        patience = settings.timeout

    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(settings.timeout) + 1,
    )
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    return uvicorn.Server(config)


def run_server(app: ASGIApp, listening: socket.socket, settings: ServeSettings) -> None:
    """Answer requests until SIGTERM or SIGINT; those that are under way are finished first."""
    # uvicorn hands the signal on when it has finished; the end is a good one.
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with _access_log(settings.access_log):
            make_server(app, settings).run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)


class _ImpatientProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Closes connections whose request does not come, or whose head is too long; uvicorn has
    limits for neither."""

    patience = 10.0  # seconds
    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self._between_requests():
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._between_requests():
            self._head_bytes = 0
        elif self._head_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.transport.write(HEAD_TOO_LARGE)
            self.transport.close()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _between_requests(self) -> bool:
        """True where no request's head has come since the last answer, or ever."""
        cycle = self.cycle
        return cycle is None or (cycle.response_complete and not cycle.more_body)

    def _watch(self) -> None:
        answered = self.cycle is None or self.cycle.response_complete
        if not answered:
            self._forget()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.patience, self._close)

    def _close(self) -> None:
        self._deadline = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _DroppingHandler(QueueHandler):
    """Puts lines into a queue, or drops them where it is full."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)


@contextmanager
def _access_log(wanted: bool) -> Iterator[None]:
    """Write the access log to standard error, from a thread of its own."""
    access_logger.propagate = False
    access_logger.setLevel(logging.INFO if wanted else logging.CRITICAL)
    if not wanted:
        yield
        return
    lines: queue.Queue[logging.LogRecord] = queue.Queue(MAX_LOG_LINES)
    handler = _DroppingHandler(lines)
    writer = logging.StreamHandler(sys.stderr)
    writer.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    listener = QueueListener(lines, writer)
    access_logger.addHandler(handler)
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        access_logger.removeHandler(handler)
