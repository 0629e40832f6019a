"""The collector: one connection, over which spans are posted (OTLP over HTTP, protobuf)."""

import http.client
import re
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from skylb._core import spans_rejected
from skylb.clock import monotonic_ns
from skylb.errors import ConfigError

PATH = "/v1/traces"
"""Where spans go below the endpoint (OTLP specification 1.x, "OTLP/HTTP Request")."""

ANSWER_BYTES_MAX = 64 << 10
HEADERS_MAX = 32
FILE_BYTES_MAX = 64 << 10

AGAIN = frozenset({408, 429, 502, 503, 504})
"""Answers after which the same spans may be sent again: those of the specification, and 408."""

_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+): ?([ -~]+)", re.ASCII)
_OURS = frozenset({"host", "content-length", "content-type", "connection", "transfer-encoding"})

Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of spans that were posted."""

    fault: str = ""
    """Why the collector did not take them; empty if it did."""
    again: bool = False
    """They may be sent again."""
    after_s: float | None = None
    """Not before so many seconds, if it said so."""
    rejected: int = 0
    """Spans that it refused of those that it took."""


def read_headers(path: Path | None) -> list[Header]:
    """The headers of a file, one ``NAME: VALUE`` per line. Empty lines and lines with # do not count.

    Raises:
        ConfigError: the file is not readable, or a line of it is no header; the message does not show it.
    """
    if path is None:
        return []
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
        lines = data.decode("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"otlp.headers_file: {path}: cannot be read: {error}"]) from error
    headers: list[Header] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _HEADER.fullmatch(line.strip())
        if match is None or match[1].lower() in _OURS:
            raise ConfigError([f"otlp.headers_file: {path}: line {number}: expected NAME: VALUE"])
        headers.append((match[1], match[2]))
    if len(data) > FILE_BYTES_MAX or len(headers) > HEADERS_MAX:
        raise ConfigError([f"otlp.headers_file: {path}: expected at most {HEADERS_MAX} headers"])
    return headers


class Collector:
    """Posts spans, and waits for the answer. For a thread of its own.

    Args:
        endpoint: URL of the collector.
        headers: for each request, besides ours.
        timeout_s: longest wait for a connection, for room to write, and for an answer.
        tls: verifies an https collector.
    """

    def __init__(
        self, endpoint: str, headers: Iterable[Header], *, timeout_s: float, tls: ssl.SSLContext
    ) -> None:
        self.url = endpoint if endpoint.endswith(PATH) else endpoint + PATH
        self.headers = tuple(headers)
        self._parts = urlsplit(self.url)
        self._timeout_s = timeout_s
        self._tls = tls
        self._connection: http.client.HTTPConnection | None = None

    def post(self, parts: Sequence[bytes], until_ns: int) -> Answer:
        """Posts one message, given in parts; blocks.

        Args:
            parts: of an ``ExportTraceServiceRequest``.
            until_ns: no wait may last longer than until then.
        """
        reused = self._connection is not None
        try:
            return self._post(parts, until_ns)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not reused:
                return Answer(fault=_text(error), again=True)
        try:  # the collector may have closed an idle connection
            return self._post(parts, until_ns)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Answer(fault=_text(error), again=True)

    def close(self) -> None:
        """Closes the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _post(self, parts: Sequence[bytes], until_ns: int) -> Answer:
        left_s = max((until_ns - monotonic_ns()) / 1e9, 0.01)
        connection = self._connection = self._connection or self._connect()
        connection.timeout = min(self._timeout_s, left_s)
        if connection.sock is not None:
            connection.sock.settimeout(connection.timeout)
        connection.putrequest("POST", self._parts.path, skip_accept_encoding=True)
        connection.putheader("Content-Type", "application/x-protobuf")
        connection.putheader("Content-Length", str(sum(map(len, parts))))
        for name, value in self.headers:
            connection.putheader(name, value)
        connection.endheaders()
        for part in parts:
            connection.send(part)
        response = connection.getresponse()
        body = response.read(ANSWER_BYTES_MAX)
        if response.will_close or not response.isclosed():
            self.close()
        if response.status // 100 == 2:
            return Answer(rejected=spans_rejected(body))
        fault = f"HTTP {response.status}"
        if response.status in AGAIN:
            return Answer(fault=fault, again=True, after_s=_seconds(response.getheader("Retry-After")))
        return Answer(fault=fault)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__


def _seconds(text: str | None) -> float | None:
    """``Retry-After`` in seconds; a date counts as absent."""
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 6 else None
