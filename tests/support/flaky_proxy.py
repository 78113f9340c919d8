"""A bad network on loopback: an HTTP proxy before a server that loses, cuts, refuses and delays what passes it."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["slow_down", "lost_request", "lost_response", "cut_response", "late"]
FAULTS: tuple[Fault, ...] = ("slow_down", "lost_request", "lost_response", "cut_response", "late")
_LATE_S = 0.05
_BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class FlakyProxy:
    """Passes requests on to ``target`` and spoils some.

    Attributes:
        url: what clients are given instead of the target.
        happened: how often each fault was inflicted, by fault and method: ``("lost_response", "PUT")``.

    Args:
        target: ``http://host:port``.
        chances: fault -> probability, ``slow_down``: 503 instead of forwarding; ``lost_request``: hung up before the
            server sees it; ``lost_response``: hung up after the server did it; ``cut_response``: half of the answer,
            then hung up; ``late``: an honest answer, later.
        seed: whether a request is spoiled depends on it, the request line and how often that line came, and not on
            what other threads ask meanwhile.
    """

    def __init__(self, target: str, chances: Mapping[Fault, float], seed: int) -> None:
        self.target, self.chances, self.seed = urlsplit(target).netloc, dict(chances), seed
        self.happened: Counter[tuple[Fault, str]] = Counter()
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"proxy": self}))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def fault(self, method: str, path: str) -> Fault | None:
        """What this request meets."""
        line = f"{method} {path}"
        with self._lock:
            self._seen[line] += 1
            draw = random.Random(f"{self.seed} {line} {self._seen[line]}").random()
            for fault, chance in self.chances.items():
                if draw < chance:
                    self.happened[fault, method] += 1
                    return fault
                draw -= chance
        return None

    @contextmanager
    def running(self) -> Iterator[FlakyProxy]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    proxy: FlakyProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _pass(self) -> None:
        body = self._body()
        fault = self.proxy.fault(self.command, self.path)
        if fault == "lost_request":
            self._hang_up()
        elif fault == "slow_down":
            self._answer(503, {"Content-Type": "application/xml", "Content-Length": str(len(_BUSY))}, _BUSY)
        else:
            self._forward(body, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes, fault: Fault | None) -> None:
        dropped = ("transfer-encoding", "content-length", "connection", "expect")
        headers = {k: v for k, v in self.headers.items() if k.lower() not in dropped}
        upstream = http.client.HTTPConnection(self.proxy.target, timeout=60)
        upstream.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        response = upstream.getresponse()
        data = response.read()
        upstream.close()
        if fault == "late":
            time.sleep(_LATE_S)
        if fault == "lost_response":
            return self._hang_up()
        kept = {k: v for k, v in response.getheaders() if k.lower() not in ("transfer-encoding", "connection")}
        if self.command != "HEAD":
            kept = {
                **{k: v for k, v in kept.items() if k.lower() != "content-length"},
                "Content-Length": str(len(data)),
            }
        self._answer(response.status, kept, data[: len(data) // 2] if fault == "cut_response" else data)
        if fault == "cut_response":
            self._hang_up()

    def _answer(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: spoiled requests are what it is for."""
