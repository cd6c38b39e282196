"""An S3 server on this machine (moto), and a proxy before it that fails and dawdles, seeded.

As a real server does, the proxy refuses what is not signed. ``Memory`` is a bucket without any.
"""

from __future__ import annotations

import http.client
import logging
import random
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from pyarrow import fs
from typing_extensions import override

from search.bucket import Bucket

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = {
    "AWS_ACCESS_KEY_ID": "me",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": "us-east-1",
}
_REFUSED = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>no, hunter2</Message></Error>'


@dataclass(frozen=True)
class Memory(Bucket):
    """A bucket that is a dict, and fails from some call on."""

    objects: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    sick: list[int] = field(default_factory=list)  # the call from which it fails

    def _call(self, what: str) -> None:
        self.calls.append(what)
        if self.sick and len(self.calls) > self.sick[0]:
            raise OSError("AWS Error SLOW_DOWN during PutObject: hunter2")

    @override
    def put(self, name: str, content: bytes) -> None:
        self._call(f"put {name}")
        self.objects[name] = content

    @override
    def get(self, name: str) -> bytes:
        self._call(f"get {name}")
        if name not in self.objects:
            raise FileNotFoundError(name)
        return self.objects[name]

    @override
    def names(self, folder: str) -> set[str]:
        self._call(f"names {folder}")
        found = (name for name in self.objects if name.startswith(f"{folder}/"))
        return {name.removeprefix(f"{folder}/") for name in found}

    @override
    def tree(self, folder: str) -> dict[str, int]:
        self._call(f"tree {folder}")
        found = enumerate(name for name in self.objects if name.startswith(f"{folder}/"))
        return {name: number for number, name in found}

    @override
    def kind(self, name: str) -> fs.FileType:
        self._call(f"kind {name}")
        if name in self.objects:
            return fs.FileType.File
        inside = any(one.startswith(f"{name}/") for one in self.objects)
        return fs.FileType.Directory if inside else fs.FileType.NotFound

    @override
    def clear(self, folder: str) -> None:
        self._call(f"clear {folder}")
        for name in [one for one in self.objects if one.startswith(f"{folder}/")]:
            del self.objects[name]

    @override
    def delete(self, name: str) -> None:
        self._call(f"delete {name}")
        self.objects.pop(name, None)


class Proxy(ThreadingHTTPServer):
    """Passes requests on to a server; some fail, some are late.

    Args:
        server: Host and port of the server.
        seed: Of the chance.
    """

    daemon_threads = True

    def __init__(self, server: tuple[str, int], seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server, self._chance, self._lock = server, random.Random(seed), threading.Lock()
        self.failing = self.late = 0.0  # shares of the requests
        self.late_s = 0.5
        self.seen: Counter[str] = Counter()
        self.names: list[str] = []  # methods and paths of what was passed on

    @property
    def endpoint(self) -> str:
        """Host and port, for ``endpoint_override``."""
        return f"127.0.0.1:{self.server_port}"

    def address(self, path: str) -> str:
        """The address of a path, bucket first."""
        return f"s3://{path}?endpoint_override={self.endpoint}&scheme=http"

    @override
    def handle_error(self, *_: Any) -> None:
        """Nothing: a driver that is killed hangs up."""

    def fate(self) -> tuple[bool, float]:
        """Whether a request fails, and seconds before it is answered."""
        with self._lock:
            fails, late = self._chance.random() < self.failing, self._chance.random() < self.late
            self.seen.update(requests=1, failed=int(fails), late=int(late))
            return fails, self.late_s if late else 0.0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy  # type: ignore[mutable-override]  # it is made by no other

    def _pass(self) -> None:
        body = self._body()
        fails, wait = self.server.fate()
        time.sleep(wait)
        if "Authorization" not in self.headers:
            self._answer(403, {}, _REFUSED % b"AccessDenied")
        elif fails:
            self._answer(500, {}, _REFUSED % b"InternalError")
        else:
            self.server.names.append(f"{self.command} {self.path.partition('?')[0]}")
            onward = http.client.HTTPConnection(*self.server.server, timeout=30)
            kept = {k: v for k, v in self.headers.items() if k.lower() not in _FRAMING}
            onward.request(self.command, self.path, body, kept)
            got = onward.getresponse()
            headers = {k: v for k, v in got.getheaders() if k.lower() not in _OWN}
            self._answer(got.status, headers, got.read(), length=got.getheader("Content-Length"))
            onward.close()

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(parts)

    def _answer(
        self, status: int, headers: dict[str, str], body: bytes, length: str | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        of_head = self.command == "HEAD" and length is not None
        self.send_header("Content-Length", length if of_head and length else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    @override
    def log_message(self, *_: Any) -> None:
        """Nothing."""


for _verb in ("GET", "PUT", "POST", "DELETE", "HEAD"):
    setattr(_Handler, f"do_{_verb}", _Handler._pass)

_FRAMING = ("content-length", "transfer-encoding", "connection", "expect")
_OWN = ("content-length", "transfer-encoding", "connection", "date", "server")


@contextmanager
def served(seed: int = 0) -> Iterator[Proxy]:
    """A server with an empty bucket ``bucket``, behind its proxy."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    for method, path in (("POST", "/moto-api/reset"), ("PUT", "/bucket")):
        asked = http.client.HTTPConnection(host, port, timeout=30)
        asked.request(method, path)
        assert asked.getresponse().status == 200
        asked.close()
    proxy = Proxy((host, port), seed)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        moto.stop()
