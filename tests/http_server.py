"""A server on the loopback that sends what a test says, as a Hub or a site would."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], "tuple[int, dict[str, str], bytes] | None"]


@contextmanager
def serving(answer: Answer, stall: Callable[[], float] = lambda: 0.0) -> Iterator[str]:
    """Serve in this context, which gets the address.

    Args:
        answer: Returns status, headers and body; None where nothing is ever to be sent.
        stall: Returns the seconds before each part of a body.
    """
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            sent = answer(self)
            if sent is None:
                over.wait(60)
                self.close_connection = True
                return
            status, headers, body = sent
            self.send_response(status)
            for key, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                for start in range(0, len(body), 4096):
                    time.sleep(stall())
                    self.wfile.write(body[start : start + 4096])

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        over.set()
        server.shutdown()
        server.server_close()
